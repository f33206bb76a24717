"""Whatever model a user writes: its plain rows say what its objects say, or the error names why."""

import enum
import json
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, Literal, NewType, TypeVar

import attrs
import pytest
from rows import rows_of

from ief_async import ConfigurationError, PayloadError, Pod
from ief_async._structure.flatten import LineReader, flat_mirror
from ief_async._structure.narrow import narrowed
from ief_async._structure.structure import structure_of

T = TypeVar("T")
Identity = NewType("Identity", str)


class Word(enum.Enum):
    """Texts, and no StrEnum."""

    ON = "on"
    OFF = "off"


class Number(enum.IntEnum):
    """Integers that are integers."""

    ONE = 1


class Odd(enum.Enum):
    """What msgspec takes for no enum."""

    TEXT = "x"
    NUMBER = 2


@attrs.frozen
class Inner:
    """What a field may hold."""

    name: str = "usual"
    labels: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Only:
    """What a mapping may hold."""

    name: str = "usual"


@attrs.frozen
class Box(Generic[T]):
    """A model of several types."""

    id: str
    x: T
    more: tuple[T, ...] = ()


def model_of(annotation, **field):
    """Return a model with an id and a field of this type."""
    fields = {"id": attrs.field(type=str), "x": attrs.field(type=annotation, **field)}
    return attrs.make_class("Model", fields, frozen=True)


def pairs(**labels):
    """Return what a mapping of texts is in a table."""
    return [{"key": key, "value": value} for key, value in labels.items()]


INNER = {"name": "usual", "labels": []}
# a model, its rows, and what stands in the column x
MODELS = {
    "labels": (model_of(dict[str, str], factory=dict), {"k": "v"}, [[], pairs(k="v")]),
    "labels that are numbers": (
        model_of(dict[str, str], factory=dict),
        {"k": 5},
        [[], pairs(k="5")],
    ),
    "labels or none": (model_of(dict[str, str] | None, default=None), {}, [None, []]),
    "labels of a Mapping": (
        model_of(Mapping[str, str], factory=dict),
        {"k": 5},
        [[], pairs(k="5")],
    ),
    "labels that are there": (model_of(dict[str, str], default={"k": "v"}), {}, [pairs(k="v"), []]),
    "labels that are made": (
        model_of(dict[str, str], factory=lambda: {"k": "v"}),
        {},
        [pairs(k="v"), []],
    ),
    "counts": (model_of(dict[str, int], factory=dict), {"k": "1"}, ["{}", '{"k":1}']),
    "a mapping of objects": (
        model_of(dict[str, Only], factory=dict),
        {"k": {}},
        ["{}", '{"k":{"name":"usual"}}'],
    ),
    "a mapping of anything": (
        model_of(dict[str, Any], factory=dict),
        {"k": [1]},
        ["{}", '{"k":[1]}'],
    ),
    "a bare dict": (model_of(dict, factory=dict), {"k": 1}, ["{}", '{"k":1}']),
    "an object": (model_of(Inner, factory=Inner), {}, [INNER, INNER]),
    "an object that is there": (
        model_of(Inner, default=Inner(labels={"k": "v"})),
        {},
        [{**INNER, "labels": pairs(k="v")}, INNER],
    ),
    "objects": (
        model_of(tuple[Inner, ...], default=(Inner(),)),
        [{}, {}],
        [[INNER], [INNER, INNER]],
    ),
    "a list that is there": (model_of(list[str], default=["k"]), [], [["k"], []]),
    "a set": (model_of(set[str], factory=set), ["k"], [[], ["k"]]),
    "a sequence": (model_of(Sequence[int], default=()), ["7"], [[], [7]]),
    "a deque": (model_of(deque[str], factory=deque), ["k"], ["[]", '["k"]']),
    "a literal": (model_of(Literal["on", "off"], default="on"), "off", ["on", "off"]),
    "a literal or none": (model_of(Literal["on"] | None, default=None), "on", [None, "on"]),
    "literal numbers": (model_of(Literal[1, 2], default=1), 2, ["1", "2"]),
    "an enum": (model_of(Word, default=Word.ON), "off", ["on", "off"]),
    "an enum or none": (model_of(Word | None, default=None), "off", [None, "off"]),
    "an enum of integers": (model_of(Number | None, default=None), 1, [None, 1]),
    "an odd enum": (model_of(Odd, default=Odd.TEXT), 2, ['"x"', "2"]),
    "a new type": (model_of(Identity, default="k"), "v", ["k", "v"]),
    "annotated": (model_of(Annotated[int | None, "why"], default=None), "3", [None, 3]),
    "final": (model_of(Final[str], default="k"), "v", ["k", "v"]),
    "a union": (model_of(int | str, default=1), "v", ["1", '"v"']),
    "anything": (model_of(Any, default=7), {"k": None}, ["7", '{"k":null}']),
    "anything, else a mapping": (model_of(Any, factory=dict), [], ["{}", "[]"]),
    "half a pair in anything": (model_of(Any, default=None), "\ud800", [None, '"\ufffd"']),
    "none against its type": (model_of(str, default=None), "v", [None, "v"]),
    "a converter": (
        model_of(str, default=None, converter=lambda x: x and x.upper()),
        "v",
        [None, "V"],
    ),
    "a time": (
        model_of(datetime | None, default=None),
        "2023-01-01T08:00:00+08:00",
        [None, datetime(2023, 1, 1, tzinfo=UTC)],
    ),
    "a generic": (Box[int], "3", [3, 3]),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_of_users_have_columns(case):
    """Whatever its types and defaults: rows and objects make the same lines, and those a batch."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from ief_async.sinks._arrow import Columns

    model, said, expected = MODELS[case]
    first = {"id": "a", "x": 3} if case == "a generic" else {"id": "a"}
    rows = rows_of(first, {"id": "b", "x": said})
    structure = structure_of(model)
    items = structure.items(rows, range(2), key="pods")
    for_arrow, for_json = (LineReader(structure, for_arrow=whether) for whether in (True, False))

    lines = for_arrow.items(rows, range(2), key="pods")
    documents = for_json.items(rows, range(2), key="pods")

    assert [for_arrow.line(item) for item in items] == lines
    assert [for_json.line(item) for item in items] == documents
    batch = Columns(model, of_targets=False).batch(lines)
    assert expected == batch.column("x").to_pylist()
    assert all({"id", "x"} <= json.loads(document).keys() for document in documents)


@pytest.mark.parametrize("for_arrow", [True, False])
def test_labels_that_the_pods_refuse_are_refused(for_arrow):
    """A null among labels is refused on the way to a file as it is on the way to an object."""
    terms = {"matchExpressions": None, "matchLabels": {"k": None}}
    selector = {"podAffinityTerm": {"labelSelector": terms}}
    affinity = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [selector]}}
    rows = rows_of({"id": "a", "affinity": affinity})
    structure = structure_of(Pod)
    refused = []
    for reader in (structure, LineReader(structure, for_arrow=for_arrow)):
        with pytest.raises(PayloadError) as caught:
            reader.items(rows, [0], key="pods")
        refused.append(caught.value.path)

    assert refused[0] == refused[1]
    assert "matchLabels" in refused[0]


def test_a_model_without_fields_is_refused():
    """What has no fields makes no rows."""

    @attrs.frozen
    class Nothing:
        """No fields."""

    with pytest.raises(ConfigurationError, match="Nothing has no fields"):
        flat_mirror(Nothing)


def test_a_narrowed_model_looks_at_its_values():
    """Validators and converters of a field are those of the model that it is taken from."""
    model = attrs.make_class(
        "Checked",
        {
            "id": attrs.field(type=str, converter=str.upper),
            "x": attrs.field(type=int, default=0, validator=attrs.validators.le(5)),
        },
    )
    narrow = narrowed(model, ["x", "id"])
    plain = LineReader(structure_of(narrow), for_arrow=False)

    assert [b'{"x":5,"id":"A"}'] == plain.items(rows_of({"id": "a", "x": 5}), [0], key="pods")
    with pytest.raises(PayloadError):
        plain.items(rows_of({"id": "a", "x": 6}), [0], key="pods")
