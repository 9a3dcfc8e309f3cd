"""Key-set pages: every row once, in order, whatever the values; and cursors that are only read as they were given."""

import string
from datetime import UTC, datetime

import pytest
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from cloud.accounts.models import Account
from cloud.common.api import pages
from cloud.common.api.cursor import Cursor, order
from cloud.common.errors import Invalid

ORDERINGS = ("created_at", "-created_at", "name", "-name")
MOMENTS = [datetime(2026, 1, 1, 12, 0, 0, micro, tzinfo=UTC) for micro in (0, 1, 999_999)]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8)


class Walks(TestCase):
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        names=st.lists(NAMES, max_size=12, unique=True),
        moments=st.lists(st.sampled_from(MOMENTS), min_size=12, max_size=12),
        ordering=st.sampled_from(ORDERINGS),
        size=st.integers(1, 5),
    )
    def test_every_row_once_in_order(self, names: list[str], moments: list[datetime], ordering: str, size: int) -> None:
        for name, moment in zip(names, moments, strict=False):
            made = Account.objects.create(name=name)
            Account.objects.filter(pk=made.pk).update(created_at=moment)
        whole = [row.pk for row in order(Account.objects.all(), ordering)]
        walked: list[object] = []
        mark = None
        while True:
            rows = order(Account.objects.all(), ordering)
            page = list((Cursor.decode(mark, ordering).after(rows) if mark else rows)[:size])
            walked += [row.pk for row in page]
            if len(page) < size:
                break
            mark = Cursor.of(page[-1], ordering).encode()
        assert walked == whole


@given(text=st.text(max_size=60))
def test_what_is_made_up_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        Cursor.decode(text, "created_at")
    assert refused.value.code == "bad_cursor"


@given(place=st.integers(0), letter=st.sampled_from(string.ascii_letters))
def test_a_changed_letter_is_refused(place: int, letter: str) -> None:
    mark = Cursor("name", "value", "00000000-0000-4000-8000-000000000000").encode()
    place %= len(mark)
    changed = mark[:place] + letter + mark[place + 1 :]
    if changed == mark:
        assert Cursor.decode(changed, "name").value == "value"
        return
    with pytest.raises(Invalid):
        Cursor.decode(changed, "name")


def test_a_cursor_of_another_ordering_is_refused() -> None:
    mark = Cursor("name", "value", "00000000-0000-4000-8000-000000000000").encode()
    with pytest.raises(Invalid):
        Cursor.decode(mark, "-name")


@pytest.mark.django_db
def test_count_is_exact_until_it_is_an_estimate(monkeypatch: pytest.MonkeyPatch, django_assert_num_queries) -> None:
    Account.objects.bulk_create(Account(name=f"account-{n}") for n in range(20))
    with django_assert_num_queries(1):
        assert pages.count(Account.objects.filter(name__startswith="account-")) == (20, False)
    monkeypatch.setattr(pages, "EXACT_UP_TO", 5)
    with django_assert_num_queries(2):
        estimate, is_estimate = pages.count(Account.objects.filter(name__startswith="account-"))
    assert is_estimate
    assert estimate > 5


@pytest.mark.django_db
def test_a_page_bounds_its_index_scan() -> None:
    from django.db import connection

    with CaptureQueriesContext(connection) as captured:
        list(
            Cursor("created_at", "2026-01-01T00:00:00+00:00", "00000000-0000-4000-8000-000000000000").after(
                order(Account.objects.all(), "created_at")
            )
        )
    assert '"created_at" >= ' in captured.captured_queries[0]["sql"]
