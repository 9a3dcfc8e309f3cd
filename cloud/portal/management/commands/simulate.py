"""`manage.py simulate N`: have N simulated hosts; break them with `--fault`, compare books with them by `--ledger`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from cloud.common.errors import Problem
from cloud.portal import simulation, simulation_ledger


class Command(BaseCommand):
    help = "Have N simulated hosts (0: none), declare what is wrong with them, or check the books against them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("count", nargs="?", type=int, help="how many simulated hosts there should be")
        parser.add_argument(
            "--fault",
            nargs="+",
            action="append",
            default=[],
            metavar=("HOST", "WORD"),
            help="what is wrong with a host, or with `all`: slow=2s fail=0.1 nature=rejected lose=0.5 silent die=30s; "
            "without a word, nothing any more",
        )
        parser.add_argument("--ledger", action="store_true", help="print every difference between books and hosts")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["count"] is not None:
                self.stdout.write(simulation.Simulation().resize(options["count"]))
            if options["fault"]:
                for name, each in simulation.declare(options["fault"]).items():
                    self.stdout.write(f"{name}: {' '.join(each['words'])}")
        except Problem as problem:
            raise CommandError(f"{problem.detail} {problem.advice}".strip()) from None
        except ValueError as error:
            raise CommandError(str(error)) from None
        except TimeoutError:
            raise CommandError("Something did not happen in time; see the logs of worker and simulator.") from None
        if options["ledger"]:
            self.stdout.write("\n".join(simulation_ledger.differences()))
