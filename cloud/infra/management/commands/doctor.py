"""`manage.py doctor`: what the doctor finds, a line each; exit code 1 when anything is out of order."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

import redis
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from cloud.common.actor import platform
from cloud.common.doctor import CHECKS, Finding
from cloud.common.waiting import wait_until
from cloud.infra.api.doctor import diagnosis
from cloud.infra.models import QuarantinedThing
from cloud.infra.services import desired, doctor
from cloud.infra.services.doctor import Deed, Diagnosis
from cloud.jobs.models import Job

PATIENCE_S = 120.0


class Command(BaseCommand):
    help = "Compare records and reality; with --fix, mend what can be mended without loss."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--fix", action="store_true", help="mend what is found, by way of quarantine")
        parser.add_argument("--json", action="store_true", help="print the outcome as one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = doctor.examine()
            deeds = self._fix(found) if options["fix"] and found.findings else []
            if deeds:
                found = doctor.examine()
        except (DatabaseError, redis.RedisError) as error:
            raise CommandError(_("The cloud's stores do not answer: %(error)s") % {"error": error}) from None
        if options["json"]:
            done = [{"id": deed.id, "result": deed.result, "detail": str(deed.detail)} for deed in deeds]
            self.stdout.write(json.dumps({**diagnosis(found), "fixed": done}, default=str, indent=1))
        else:
            self._tell(found)
        sys.exit(1 if found.findings or found.unseen else 0)

    def _fix(self, found: Diagnosis) -> list[Deed]:
        """Have everything mended that can be, and wait for it to be done."""
        actor = platform("command line")
        by_id = {finding.id: finding for finding in found.findings}
        deeds = doctor.fix(by_id, actor=actor)
        for deed in deeds:
            finding = by_id[deed.id]
            self.stderr.write(f"{deed.result:<9} {finding.kind:<20} {finding.name}: {deed.detail}")
        jobs = {deed.job.pk for deed in deeds if deed.job}
        wants = [want for deed in deeds for want in deed.wants]
        try:
            wait_until(lambda: not Job.objects.live().filter(pk__in=jobs).exists(), PATIENCE_S)
            wait_until(lambda: all(desired.is_converged(*want) for want in wants), PATIENCE_S)
        except TimeoutError:
            self.stderr.write(_("Not everything is done yet; look again later."))
        return deeds

    def _tell(self, found: Diagnosis) -> None:
        for line in _lines(found.findings):
            self.stdout.write(line)
        for line in _lines(found.notes):
            self.stdout.write(f"{line} " + _("(a note)"))
        for each in found.unseen:
            where = f"{each.name} {each.part}".strip()
            self.stdout.write(f"{_('unseen'):<8} {where}: {each.reason}")
        if kept := QuarantinedThing.objects.count():
            said = ngettext("%(count)d thing is in quarantine.", "%(count)d things are in quarantine.", kept)
            self.stdout.write(said % {"count": kept})
        said = _("%(checks)d kinds of differences, %(machines)d machines, %(seconds).1f s") % {
            "checks": found.checks,
            "machines": found.machines,
            "seconds": found.took_s,
        }
        count = len(found.findings)
        if count:
            verdict = ngettext("%(count)d finding.", "%(count)d findings.", count) % {"count": count}
        else:
            verdict = _("Not all was looked at.") if found.unseen else _("All is well.")
        self.stdout.write(f"{verdict} ({said})")


def _lines(findings: Iterable[Finding]) -> Iterable[str]:
    rows = [
        (
            str(CHECKS[each.kind].nature),
            each.kind,
            each.host or "-",
            f"{each.name}: {each.detail}",
            timesince(each.since, timezone.now(), depth=1) if each.since else "",
        )
        for each in findings
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for nature, kind, host, text, since in rows:
        told = f"{nature:<{widths[0]}}  {kind:<{widths[1]}}  {host:<{widths[2]}}  {text}"
        yield f"{told} ({since})" if since else told
