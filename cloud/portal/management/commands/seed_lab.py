"""`manage.py seed_lab < lab.json`: fill a fresh lab cloud, and wait until what was there is back."""

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from cloud.common.errors import Problem
from cloud.portal.seed import LabSeed


class Command(BaseCommand):
    help = "Fill a fresh lab cloud from the launcher's description on standard input; repeat as you like."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.stdout.write(LabSeed(json.load(sys.stdin)).fill())
        except Problem as problem:
            raise CommandError(f"{problem.detail} {problem.advice}".strip()) from None
        except TimeoutError:
            raise CommandError("A job of the lab did not end in time; see the worker's log.") from None
