"""Processes that outlive the agent: found again by their command line, stopped and watched by pidfd (pidfd_open(2))."""

import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path


def is_running(pid: int, argument: str) -> bool:
    """Whether the process lives and has this text in its command line: an id alone may have been given anew."""
    try:
        return argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def stop(pid: int, number: signal.Signals, grace_s: float) -> None:
    """Send the signal and wait for the end; kill after `grace_s`. A process that is gone is fine."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for sent in (number, signal.SIGKILL):
            try:
                signal.pidfd_send_signal(handle, sent)
            except ProcessLookupError:
                return
            if select.select([handle], [], [], grace_s)[0]:
                return
    finally:
        os.close(handle)


class DeathWatch:
    """Calls back when a watched process ends; one daemon thread for all of them."""

    def __init__(self, on_death: Callable[[str], None]) -> None:
        self._on_death = on_death
        self._lock = threading.Lock()
        self._watched: dict[str, tuple[int, int]] = {}
        self._poll = select.epoll()
        self._thread: threading.Thread | None = None

    def watch(self, name: str, pid: int | None) -> None:
        """Watch this process under the name from now on; None stops watching the name."""
        with self._lock:
            held = self._watched.get(name)
            if held and held[0] == pid:
                return
            if held:
                self._drop(name)
            if pid is None:
                return
            try:
                handle = os.pidfd_open(pid)
            except ProcessLookupError:
                return
            self._watched[name] = (pid, handle)
            self._poll.register(handle, select.EPOLLIN)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="death-watch", daemon=True)
                self._thread.start()

    def watched(self) -> set[str]:
        with self._lock:
            return set(self._watched)

    def _drop(self, name: str) -> None:
        _, handle = self._watched.pop(name)
        self._poll.unregister(handle)
        os.close(handle)

    def _run(self) -> None:
        while True:
            ready = {handle for handle, _ in self._poll.poll()}
            with self._lock:
                dead = [name for name, (_, handle) in self._watched.items() if handle in ready]
                for name in dead:
                    self._drop(name)
            for name in dead:
                self._on_death(name)
