"""Draining before an upgrade: no new work is taken, what is at work goes on to its end."""

from django.utils.translation import gettext_lazy as _

from cloud.common.actor import Actor
from cloud.common.errors import Unavailable
from cloud.config.services import value
from cloud.jobs.models import Job

SETTING = "platform.is_draining"


def expect_taking_work(actor: Actor) -> None:
    """Raise Unavailable `draining` to people while the platform is drained; what it does by itself goes on."""
    if actor.user is not None and value(SETTING):
        raise Unavailable(
            _("The platform is about to be upgraded and takes no new work."),
            code="draining",
            advice=_("Try again when the upgrade is over; what has begun goes on."),
        )


def words() -> str:
    """`draining, 3 jobs left` or `draining, none left`; empty when it is not."""
    if not value(SETTING):
        return ""
    left = Job.objects.live().count()
    return f"draining, {left or 'no'} job{'' if left == 1 else 's'} left"
