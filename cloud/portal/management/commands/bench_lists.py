"""`bench_lists`: what pages of long lists cost, as JSON on standard output; see docs/benchmarks.md."""

import json
import logging
import os
import signal
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandParser

from cloud.portal.bench import population, scratch
from cloud.portal.bench.lists import LISTS, Lister
from cloud.portal.bench.meter import Meter


class Command(BaseCommand):
    help = "Measure lists of many rows in a database made for it and dropped again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rows", type=int, default=100_000)
        parser.add_argument("--most", type=int, default=250, help="cases a list and a caller")
        parser.add_argument("--lists", nargs="+", choices=LISTS, default=LISTS)

    def handle(self, *args: Any, **options: Any) -> None:
        signal.signal(signal.SIGTERM, _interrupt)
        with scratch.database(), Meter() as meter, _unread_logs():
            made = population.fill(options["rows"], self._say)
            population.settle()
            lister = Lister(meter, made.member, options["most"], self._say)
            self.stdout.write(json.dumps({prefix: lister.measure(prefix) for prefix in options["lists"]}))

    def _say(self, text: str) -> None:
        self.stderr.write(text)
        self.stderr.flush()


class _unread_logs:  # noqa: N801 - used as a function
    """Requests write their log lines, as they do in the web process, to where nobody looks."""

    def __enter__(self) -> None:
        self._nowhere = open(os.devnull, "w")
        self._streams = [
            (handler, handler.setStream(self._nowhere))
            for handler in logging.getLogger().handlers
            if isinstance(handler, logging.StreamHandler)
        ]

    def __exit__(self, *_: object) -> None:
        for handler, stream in self._streams:
            if stream is not None:
                handler.setStream(stream)
        self._nowhere.close()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
