"""Rows that are read from a body in their order, without taking all of them apart."""

import json
from typing import Any

import attrs
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ief_async import PayloadError
from ief_async._messages import Answer
from ief_async._scan.reading import structure_some
from ief_async._structure.envelope import RowsOfBody, split
from ief_async._structure.flatten import LineReader
from ief_async._structure.structure import structure_of

MARK = '{"id":"'
IDS = [f"pod-{number}" for number in range(9)]


@attrs.frozen(kw_only=True)
class Item:
    """A row in which an id may stand anywhere."""

    id: str
    text: str | None = None
    own: Any = None
    many: Any = None


@attrs.frozen(kw_only=True)
class WithoutId:
    """A model of rows whose ids it does not ask for."""

    text: str | None = None


texts = st.sampled_from(["", "a", "},", MARK, f'}},{MARK}a"', '"', "\\", "]", '[{"id":"a"}]'])
nested = st.sampled_from(IDS).map(lambda one: {"id": one, "text": "nested"})
others = st.fixed_dictionaries(
    {}, optional={"text": texts, "own": nested, "many": st.lists(nested, max_size=4)}
)


@st.composite
def bodies(draw):
    """Draw rows and a body that has them, between other things that look like rows."""
    rows = []
    for identity in draw(st.lists(st.sampled_from(IDS), unique=True, min_size=1)):
        rest = list(draw(others).items())
        rest.insert(draw(st.integers(0, len(rest))) if draw(st.booleans()) else 0, ("id", identity))
        rows.append(dict(rest))
    members = {"count": len(rows), "pods": rows}
    if draw(st.booleans()):
        members["before"] = draw(st.lists(nested, max_size=3))
        members = dict(draw(st.permutations(list(members.items()))))
    style = draw(st.sampled_from([{"separators": (",", ":")}, {}, {"indent": 1}]))
    return rows, json.dumps(members, **style).encode()


def read(reader, body, *, most_bytes, first=0):
    """Return all rows from `first` on as objects, a chunk at a time."""
    rows = split(body, key="pods")
    answer = Answer(value=rows, raw=body, request_id=None)
    positions, items = range(first, len(rows.ids)), []
    while rest := positions[len(items) :]:
        some = structure_some(reader, answer, rest, key="pods", most_bytes=most_bytes)
        assert 1 <= len(some) <= len(rest)
        items += some
    return items


@settings(max_examples=examples(500))
@given(made=bodies(), most_bytes=st.integers(1, 400), first=st.integers(0, 3))
def test_rows_are_what_any_reader_finds(made, most_bytes, first):
    """The rows are those of the list, whatever else looks like a row, and however it is written."""
    rows, body = made
    first = min(first, len(rows) - 1)
    wanted = [Item(**row) for row in rows[first:]]
    assert wanted == read(structure_of(Item), body, most_bytes=most_bytes, first=first)

    lines = read(
        LineReader(structure_of(Item), for_arrow=False), body, most_bytes=most_bytes, first=first
    )
    assert [attrs.asdict(item) for item in wanted] == [json.loads(line) for line in lines]


@given(made=bodies(), most_bytes=st.integers(1, 400))
def test_a_model_needs_no_id(made, most_bytes):
    """A model without an id gets the same rows."""
    rows, body = made
    wanted = [WithoutId(text=row.get("text")) for row in rows]
    assert wanted == read(structure_of(WithoutId), body, most_bytes=most_bytes)


@given(made=bodies(), most_bytes=st.integers(1, 400), wrong=st.integers(0, 8))
def test_rows_before_a_wrong_one_come(made, most_bytes, wrong):
    """Of rows with a wrong one those before it come; then an error names its place."""
    rows, body = made
    wrong %= len(rows)
    rows[wrong]["text"] = {"no": "text"}
    body = json.dumps({"pods": rows, "count": len(rows)}, separators=(",", ":")).encode()
    reader, found = structure_of(Item), split(body, key="pods")
    answer = Answer(value=found, raw=body, request_id=None)
    items = []
    with pytest.raises(PayloadError) as caught:
        while rest := range(len(items), len(rows)):
            items += structure_some(reader, answer, rest, key="pods", most_bytes=most_bytes)
    assert rows[:wrong] == [
        {name: value for name, value in attrs.asdict(item).items() if name in row}
        for item, row in zip(items, rows, strict=False)
    ]
    assert caught.value.path == f"pods[{wrong}].text"


def test_usual_rows_are_never_taken_apart(monkeypatch):
    """Rows that all begin with their id, as the service writes them, are read from the body."""
    monkeypatch.setattr(RowsOfBody, "__getitem__", None)
    rows = [{"id": identity, "text": "a" * 50} for identity in IDS]
    body = json.dumps({"count": 9, "pods": rows}, separators=(",", ":")).encode()
    assert IDS == [item.id for item in read(structure_of(Item), body, most_bytes=100)]
