"""Documents across the wire: what goes in comes out; one release apart is borne; nonsense is refused."""

import json
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.common.wire import Answer, Command, Desired, Failure, Held, Hello, Message, Observation, Query

text = st.text(max_size=20)
body = st.dictionaries(text, st.recursive(st.none() | st.booleans() | st.integers() | text, st.lists, max_leaves=5))
number = st.integers(0, 2**53)
moment = st.floats(0, 4e9)
failures = st.builds(Failure, nature=text, code=text, detail=text)
messages = st.one_of(
    st.builds(
        Command,
        key=text,
        job=text,
        sequence=number,
        resource=text,
        step=text,
        direction=st.sampled_from(["run", "undo"]),
        attempt=number,
        task=text,
        body=body,
        deadline=moment,
    ),
    st.builds(Answer, key=text, agent=text, body=body, failure=st.none() | failures),
    st.builds(Desired, agent=text, section=text, number=number, body=body),
    st.builds(Held, agent=text, section=text, number=number, failure=st.none() | failures),
    st.builds(Query, id=text, task=text, body=body, expires=moment),
    st.builds(
        Hello, agent=text, version=text, boot_id=text, facts=body, held=st.dictionaries(text, number, max_size=3)
    ),
    st.builds(Observation, agent=text, topic=text, body=body, at=moment),
)


@dataclass(frozen=True)
class Part:
    name: str
    size_bytes: int = 0


@dataclass(frozen=True)
class Whole(Message):
    kind: ClassVar[str] = "test.whole"
    parts: list[Part]
    first: Part | None = None
    by_name: dict[str, Part] = field(default_factory=dict)
    pair: tuple[Part, ...] = ()
    tags: list[str] = field(default_factory=list)


@given(message=messages)
def test_envelopes_come_back_as_they_went(message):
    assert type(message).from_document(json.loads(json.dumps(message.to_document()))) == message


@given(names=st.lists(text, max_size=4))
def test_nested_parts_come_back_as_they_went(names):
    parts = [Part(name, len(name)) for name in names]
    whole = Whole(parts, parts[0] if parts else None, {p.name: p for p in parts}, tuple(parts), names)
    assert Whole.from_document(json.loads(json.dumps(whole.to_document()))) == whole


def test_key_that_is_not_known_is_dropped():
    assert Whole.from_document({"parts": [{"name": "a", "colour": "red"}], "newer": 1}) == Whole([Part("a")])


@pytest.mark.parametrize("document", [{}, {"parts": 5}, {"parts": ["a"]}, {"parts": [{}]}, [], "text", None])
def test_document_that_makes_no_sense_is_refused(document):
    with pytest.raises((TypeError, ValueError)):
        Whole.from_document(document)
