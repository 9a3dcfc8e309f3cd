"""`token USER`: prints a fresh API token."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from cloud.accounts.models import User
from cloud.accounts.services import bootstrap, tokens
from cloud.common.actor import platform


class Command(BaseCommand):
    help = "Make an API token for a user and print it; it is shown this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user")
        parser.add_argument("--name", default="command line")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["user"] == bootstrap.ADMIN:
            bootstrap.ensure_admin()
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']}.")
        _token, secret = tokens.create(actor=platform("command line"), user=user, name=options["name"])
        self.stdout.write(secret)
