"""What comes in is what the document says: JSON types as they are, lengths as sent, filters with values."""

from typing import Any

import pytest
from rest_framework import serializers

from cloud.common.api.serializers import InputSerializer
from tests.base.api import Problems
from tests.base.clients import Client


class Wish(InputSerializer):
    name = serializers.CharField(max_length=4, required=False)
    count = serializers.IntegerField(required=False)
    is_fast = serializers.BooleanField(required=False)
    kind = serializers.ChoiceField(["a", "b"], required=False)
    words = serializers.ListField(child=serializers.CharField(max_length=4), required=False)
    note = serializers.CharField(allow_null=True, required=False)


class AskedFor(Wish):
    is_json = False


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 1},
        {"name": 1.5},
        {"name": True},
        {"name": "ab   "},
        {"name": "\nabcd"},
        {"count": "1"},
        {"count": True},
        {"is_fast": "true"},
        {"is_fast": 1},
        {"is_fast": "off"},
        {"kind": 1},
        {"words": [1]},
        {"words": ["ok", "too long"]},
    ],
)
def test_refused(wrong: dict[str, Any]) -> None:
    asked = Wish(data=wrong)
    assert not asked.is_valid()
    assert set(asked.errors) == set(wrong)


def test_taken() -> None:
    good = {"name": " ab ", "count": 1, "is_fast": False, "kind": "a", "words": ["ok"], "note": None}
    asked = Wish(data=good)
    assert asked.is_valid(), asked.errors
    assert asked.validated_data == {**good, "name": "ab"}


def test_in_a_query_string_all_are_texts() -> None:
    asked = AskedFor(data={"count": "1", "is_fast": "true"})
    assert asked.is_valid(), asked.errors
    assert asked.validated_data == {"count": 1, "is_fast": True}


@pytest.mark.django_db
class TestFilters(Problems):
    @pytest.mark.parametrize("value", ["", " ", "+"])
    def test_a_filter_needs_a_value(self, admin: Client, value: str) -> None:
        problem = self.assert_problem(admin.get("/api/v1/nics/", {"host": value}), 400)
        assert problem["errors"]["host"]

    @pytest.mark.parametrize("value", ["x", "²", "10.0.0.1/24", "300.0.0.1"])
    def test_an_address_filter_needs_an_address(self, admin: Client, value: str) -> None:
        for path in ("nics", "ip-addresses"):
            problem = self.assert_problem(admin.get(f"/api/v1/{path}/", {"address": value}), 400)
            assert problem["errors"]["address"]
