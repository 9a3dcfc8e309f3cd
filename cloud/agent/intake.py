"""What comes in from control: a Celery worker that only takes; the work is done in the agent's own threads.

So the worker never waits behind a command, bulk or not, and both queues are read by one consumer. Messages are
acknowledged as they are taken: the journal and control's re-sending make good what a crash loses.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from urllib.parse import quote

from celery import Celery, bootsteps
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer, Tasks
from celery.worker.request import Request
from kombu import Queue

from cloud.agent import jitter
from cloud.agent.config import AgentConfig
from cloud.agent.link import tls_options
from cloud.agent.registry import QUERIES, Machine
from cloud.agent.transport import Transport
from cloud.common.driver import DriverError
from cloud.common.wire import Answer, Document, Failure, Message, Query

log = logging.getLogger(__name__)

QUERY_THREADS = 4
LONGEST_PAUSE_S = 5.0
ANSWER_QUEUE = "control.answers"

M = TypeVar("M", bound=Message)
Receive = Callable[[str, Document, bool], None]
TASKS = ("agent.command", "agent.desired", "agent.query")


class _Patient(Consumer):  # type: ignore[misc]
    """Connects for ever, with a jittered pause of at most five seconds: a thousand agents must not come in step."""

    def ensure_connected(self, connection: Any) -> Any:
        def failed(error: Exception, pause: float) -> None:
            log.warning("control's Redis cannot be reached: %s; again in %.1f s", error, pause)

        start = jitter.between(0.2, 1.0)
        return connection.ensure_connection(
            failed,
            interval_start=start,
            interval_step=start,
            interval_max=LONGEST_PAUSE_S,
            callback=state.maybe_shutdown,
        )


class _Undated(Request):  # type: ignore[misc]
    """Leaves Celery's expiry alone, which trusts this machine's clock: each document has its own, by control's."""

    def maybe_expire(self) -> bool:
        return False


class Intake:
    """The agent's Celery application and worker.

    `receive` is given each message: its task (`agent.command`, …), its document, and whether it came by the bulk queue.
    `connected` is called at each connection to the broker. `sign` gives what goes with a document to prove who sends it
    to a task; what it raises, `send` does.
    """

    def __init__(
        self,
        config: AgentConfig,
        *,
        receive: Receive,
        connected: Callable[[], None],
        sign: Callable[[str, Document], Document],
    ) -> None:
        self._sign = sign
        self.app = application(config)
        self._answers = _queue(ANSWER_QUEUE)
        self._is_stopping = threading.Event()

        class Greeting(bootsteps.StartStopStep):  # type: ignore[misc]
            requires = (Tasks,)

            def start(self, consumer: Any) -> None:
                connected()

        self.app.steps["consumer"].add(Greeting)

        def take(task: Any, document: Document) -> None:
            is_bulk = str(task.request.delivery_info.get("routing_key", "")).endswith(".bulk")
            receive(task.name, document, is_bulk)

        for name in TASKS:
            self.app.task(take, name=name, bind=True, Request=_Undated)

    def send(self, task: str, document: Document) -> None:
        """Put a document on control's queue. Raises when the broker cannot be reached."""
        self.app.send_task(
            task,
            kwargs={"document": document, "signature": self._sign(task, document)},
            queue=self._answers,
            ignore_result=True,
            retry=True,
            retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0},
        )

    def run(self) -> None:
        """Take messages until `stop`, in the main thread. Whatever befalls the worker, another begins."""
        while not self._is_stopping.is_set():
            worker = WorkController(
                app=self.app,
                hostname=f"agent@{self.app.main}",
                consumer_cls=_Patient,
                without_mingle=True,
                without_gossip=True,
                without_heartbeat=True,
            )
            worker.start()
            if not self._is_stopping.is_set():
                log.error("the worker gave up; another begins")
                self._is_stopping.wait(jitter.between(0.5, LONGEST_PAUSE_S))

    def stop(self) -> None:
        """End `run` within about a second. Safe in a signal handler."""
        self._is_stopping.set()
        state.should_stop = 0


class Questions:
    """Answers queries in threads of their own; `answer` is given the query's id and the answer's document."""

    def __init__(
        self,
        machine: Machine,
        answer: Callable[[str, Document], None],
        now: Callable[[], float],
        pool: ThreadPoolExecutor | None = None,
    ) -> None:
        self._machine, self._answer, self._now = machine, answer, now
        self._pool = pool or ThreadPoolExecutor(QUERY_THREADS, thread_name_prefix="query")

    def take(self, query: Query) -> None:
        self._pool.submit(self._work, query)

    def _work(self, query: Query) -> None:
        if query.expires < self._now():
            return
        began = time.monotonic()
        self._answer(query.id, self._ask(query).to_document())
        if time.monotonic() - began > 5:
            log.warning("query %s took %.1f s: nobody waits that long", query.task, time.monotonic() - began)

    def _ask(self, query: Query) -> Answer:
        agent = self._machine.uuid
        handler = QUERIES.get(query.task)
        if handler is None:
            detail = f"This agent does not know {query.task}; upgrade it."
            return Answer(query.id, agent, failure=Failure("unsupported", "unknown_query", detail))
        try:
            message = handler.message.from_document(self._machine.opened(query.body))
            return Answer(query.id, agent, handler.function(message, self._machine).to_document())
        except DriverError as error:
            return Answer(query.id, agent, failure=Failure(error.nature, error.code, error.detail))
        except Exception as error:
            log.exception("query %s failed", query.task)
            detail = f"{type(error).__name__}: {error}"
            return Answer(query.id, agent, failure=Failure("failed", "internal_error", detail))


def application(config: AgentConfig) -> Celery:
    """Celery as agents use it: JSON, early acknowledgement, nothing kept in Redis, no results, nothing broadcast."""
    own = f"agent.{config.uuid}"
    app = Celery(config.uuid, set_as_current=False)
    app.conf.update(
        broker_url=_broker_url(config),
        broker_transport=Transport,
        broker_use_ssl=tls_options(config) or None,
        broker_transport_options={
            "priority_steps": [0],
            "socket_connect_timeout": 3,
            "socket_timeout": 10,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        task_queues=[_queue(own), _queue(f"{own}.bulk")],
        task_default_queue=own,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=False,
        task_store_errors_even_if_ignored=False,
        result_backend=None,
        worker_pool="threads",
        worker_concurrency=1,
        worker_prefetch_multiplier=0,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        enable_utc=True,
        timezone="UTC",
    )
    return app


def _queue(name: str) -> Queue:
    """A queue reached by its name alone: no binding in Redis, which an agent may not write and Redis may forget."""
    return Queue(name, routing_key=name, no_declare=True)


def read(kind: type[M], document: Any) -> M | None:
    """The message, or None: one that makes no sense is logged without its content; control's deadline settles it."""
    try:
        return kind.from_document(document)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        name = document.get("key", document.get("id", "?")) if isinstance(document, dict) else "?"
        log.error("a %s (%s) cannot be read: %s", kind.__name__, name, error)
        return None


def _broker_url(config: AgentConfig) -> str:
    scheme, _, rest = config.redis_url.partition("://")
    if not config.redis_username:
        return config.redis_url
    return f"{scheme}://{quote(config.redis_username, safe='')}:{quote(config.redis_password, safe='')}@{rest}"
