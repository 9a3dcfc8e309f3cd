"""`signin_link USER`: prints a link that signs the user in once."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from cloud.accounts.models import User
from cloud.accounts.services import bootstrap, links
from cloud.common.actor import platform
from cloud.common.errors import Problem


class Command(BaseCommand):
    help = "Make a sign-in link for a user and print it; it works once, within 15 minutes."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["user"] == bootstrap.ADMIN:
            bootstrap.ensure_admin()
        user = User.objects.filter(username=options["user"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['user']}.")
        try:
            secret = links.create(user, actor=platform("command line"))
        except Problem as problem:
            raise CommandError(str(problem)) from problem
        self.stdout.write(f"{settings.BASE_URL.rstrip('/')}/signin/{secret}/")
