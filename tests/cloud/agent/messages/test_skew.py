"""Control and agent may be one release apart: what the one before said is understood, and it understands this one."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from cloud.agent.version import PROTOCOL, understands
from cloud.common.wire import Message
from tests.cloud.agent.messages import record

FILES = sorted(record.FOLDER.glob("protocol-*.json"))
# This release's own once it is fixed, and the one before it.
BORNE = [path for path in FILES if int(path.stem.rpartition("-")[2]) >= PROTOCOL - 1]
RECORDED = [
    pytest.param(name, was, id=f"{path.stem}-{name}")
    for path in BORNE
    for name, was in json.loads(path.read_text()).items()
]


def test_there_is_a_record_to_compare_with():
    assert BORNE
    assert len(RECORDED) > 20


@pytest.mark.parametrize(("name", "was"), RECORDED)
def test_what_was_said_is_understood(name, was):
    made = record.classes().get(name)
    assert made is not None, f"{name} is gone: machines of the release before still say it, or are asked it"
    assert made.kind == was["kind"]
    said = made.from_document(was["example"])
    document = said.to_document()
    kept = {key: value for key, value in was["example"].items() if key in document}
    assert {key: document[key] for key in kept} == kept or _has_more(document, kept)


def _has_more(document, kept):
    """Nested messages may have gained fields; what was said is all still there."""
    if isinstance(kept, dict):
        shared = kept.keys() & document.keys() if isinstance(document, dict) else set()
        return isinstance(document, dict) and all(_has_more(document[key], kept[key]) for key in shared)
    if isinstance(kept, list):
        return len(document) == len(kept) and all(map(_has_more, document, kept))
    return bool(document == kept)


@pytest.mark.parametrize(("name", "was"), RECORDED)
def test_it_fits_what_the_other_end_knows(name, was):
    made = record.classes()[name]
    against = incompatible(was, record.recorded(made))
    assert not against, f"{name}: {against}; give it another name, and keep the old one for a release"


def incompatible(was, now):
    """Why one end that knows `was` and one that knows `now` do not understand each other; [] when they do."""
    found = []
    for name, field_now in now["fields"].items():
        field_was = was["fields"].get(name)
        if field_was is None:
            if field_now["is_required"]:
                found.append(f"{name} is new and has no default")
        elif field_was["type"] != field_now["type"]:
            found.append(f"{name} was {field_was['type']} and is {field_now['type']}")
        elif field_now["is_required"] and not field_was["is_required"]:
            found.append(f"{name} had a default")
    found += [
        f"{name} is gone, and the other end needs it"
        for name, field_was in was["fields"].items()
        if field_was["is_required"] and name not in now["fields"]
    ]
    return found


@dataclass(frozen=True)
class Was:
    kind: ClassVar[str] = "test.skew"
    name: str
    size: int = 0
    parts: list[str] = field(default_factory=list)


def changed(**fields):
    """`Was` with other fields: {name: (type, default)}, `...` for none, None to take it away."""
    given = {"name": (str, ...), "size": (int, 0), "parts": (list[str], [])} | fields
    wanted = {name: each for name, each in given.items() if each is not None}
    ordered = sorted(wanted.items(), key=lambda item: item[1][1] is not ...)
    made = [
        (name, kind) if default is ... else (name, kind, field(default_factory=lambda default=default: default))
        for name, (kind, default) in ordered
    ]
    return dataclasses.make_dataclass("Now", made, bases=(Message,), frozen=True, namespace={"kind": "test.skew"})


@pytest.mark.parametrize(
    ("fields", "is_borne"),
    [
        ({}, True),
        ({"more": (int, 1)}, True),
        ({"size": None}, True),
        ({"more": (int, ...)}, False),
        ({"size": (str, "")}, False),
        ({"parts": (list[int], [])}, False),
        ({"name": None}, False),
        ({"size": (int, ...)}, False),
        ({"size": (int | None, None)}, False),
    ],
)
def test_an_incompatible_change_is_found(fields, is_borne):
    assert (not incompatible(record.recorded(Was), record.recorded(changed(**fields)))) == is_borne


@pytest.mark.parametrize(("apart", "is_understood"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_one_release_apart_is_understood(apart, is_understood):
    assert understands(PROTOCOL + apart) is is_understood
