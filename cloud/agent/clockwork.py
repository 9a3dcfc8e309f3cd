"""What an agent does again and again, for one agent or for a thousand: one thread keeps the time, a pool does the work.

    routine = clockwork.routine(look, name="inventory")     look() -> seconds until the next time, None: when woken
    routine.wake()                                          at once, or right after the present run
    routine.stop()                                          never again

A routine never runs twice at once.
"""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger(__name__)

# More than an agent has routines, so that none waits for another; threads are made as they are needed.
THREADS = 64
AFTER_A_DEFECT_S = 5.0

Act = Callable[[], float | None]


class Routine:
    """Something done again and again; made by `Clockwork.routine`."""

    def __init__(self, clockwork: "Clockwork", act: Act, name: str) -> None:
        self._clockwork, self._act, self.name = clockwork, act, name
        self._lock = threading.Lock()
        self._is_running = self._is_stopped = self._is_woken = False
        # Counts what was planned: a plan that another has overtaken is passed over.
        self.plan = 0

    def wake(self) -> None:
        """Run at once; when it runs already, once more after that."""
        with self._lock:
            if self._is_stopped:
                return
            if self._is_running or self._is_woken:
                self._is_woken = True
                return
            self._is_woken = True
            self.plan += 1
        self._clockwork.submit(self.run)

    def stop(self) -> None:
        """Run no more; a run under way ends by itself."""
        with self._lock:
            self._is_stopped = True
            self.plan += 1

    def due(self, plan: int) -> None:
        """Its time has come, unless it was woken meanwhile."""
        if plan == self.plan:
            self.wake()

    def run(self) -> None:
        with self._lock:
            if self._is_stopped or self._is_running:
                return
            self._is_running, self._is_woken = True, False
        pause: float | None = AFTER_A_DEFECT_S
        try:
            pause = self._act()
        except Exception:
            log.exception("%s failed", self.name)
        finally:
            self._after(pause)

    def _after(self, pause: float | None) -> None:
        with self._lock:
            self._is_running = False
            is_woken, self._is_woken = self._is_woken, False
            self.plan += 1
            plan, is_stopped = self.plan, self._is_stopped
        if is_stopped:
            return
        if is_woken:
            self.wake()
        elif pause is not None:
            self._clockwork.at(time.monotonic() + pause, self, plan)


class Clockwork:
    """Runs routines at their times. Its threads begin with the first one."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="routine")
        self._plans: list[tuple[float, int, Routine, int]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def routine(self, act: Act, *, name: str, first_s: float | None = 0.0) -> Routine:
        """Have `act` done in `first_s` seconds (None: when woken), and then as it says itself.

        One that fails with an error, which is logged, is tried again in five seconds.
        """
        made = Routine(self, act, name)
        if first_s is not None:
            if first_s > 0:
                self.at(time.monotonic() + first_s, made, made.plan)
            else:
                made.wake()
        return made

    def at(self, due: float, routine: Routine, plan: int) -> None:
        """Run the routine at `due` (time.monotonic()), unless it was planned anew by then."""
        with self._changed:
            heapq.heappush(self._plans, (due, next(self._order), routine, plan))
            if self._thread is None and not self._is_stopped:
                self._thread = threading.Thread(target=self._keep_time, name="clockwork", daemon=True)
                self._thread.start()
            if self._plans[0][2] is routine:
                self._changed.notify()

    def submit(self, act: Callable[[], None]) -> None:
        """Do it soon, in the pool."""
        try:
            self._pool.submit(act)
        except RuntimeError:  # the pool was shut down
            log.debug("too late: the clockwork has stopped")

    def stop(self) -> None:
        """Begin nothing any more."""
        with self._changed:
            self._is_stopped = True
            self._plans.clear()
            self._changed.notify()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _keep_time(self) -> None:
        while True:
            with self._changed:
                if self._is_stopped:
                    return
                now = time.monotonic()
                if not self._plans or self._plans[0][0] > now:
                    self._changed.wait(self._plans[0][0] - now if self._plans else None)
                    continue
                _due, _order, routine, plan = heapq.heappop(self._plans)
            routine.due(plan)
