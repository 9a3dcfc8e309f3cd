"""`drain [start|stop]`: takes no new work before an upgrade, or takes it again; prints what is left."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from cloud.common.actor import platform
from cloud.config import services as config
from cloud.jobs import drain


class Command(BaseCommand):
    help = (
        "Take no new work (start), take it again (stop), and print whether the platform is draining and what is left."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("verb", nargs="?", choices=("start", "stop"))

    def handle(self, *args: Any, **options: Any) -> None:
        if options["verb"]:
            config.change(drain.SETTING, value=options["verb"] == "start", actor=platform("command line"))
        if words := drain.words():
            self.stdout.write(words)
