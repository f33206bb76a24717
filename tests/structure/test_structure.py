"""From bytes to objects: what is accepted, what it means, and how a refusal is worded."""

import contextlib
import enum
import json
import math
import socket
import typing
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, NewType, TypeVar

import attr
import attrs
import cattrs
import msgspec
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import TWISTS, everything_said, objects, one, page, rows_of, tolerant

from ief_async import (
    ConfigurationError,
    IefError,
    IefSession,
    PayloadError,
    Pod,
    RetryPolicy,
    Token,
)
from ief_async._models import PodList
from ief_async._structure.envelope import split
from ief_async._structure.structure import Structure, structure_of

T = TypeVar("T")

SAMPLES = Path(__file__).parents[1] / "samples"
DOCUMENTED = (SAMPLES / "list_pods.200.json").read_bytes()
CONTRADICTIONS = (SAMPLES / "contradictions.json").read_bytes()
PODS = structure_of(Pod)
MARKER = "hunter2-0451"
QUICK = RetryPolicy(attempts=2, base=0, throttled_base=0)


def refused(row, structure=PODS):
    """Return the error that a row ends in."""
    with pytest.raises(PayloadError) as caught:
        one(structure, row)
    return caught.value


def fails_to_split(body):
    """Return the error that a body ends in."""
    with pytest.raises(PayloadError) as caught:
        split(body, key="pods")
    return caught.value


def in_container(**fields):
    """Return a pod with one container."""
    return {"id": "a", "containers": [fields]}


def dig(value, path):
    """Follow a path such as ``containers.0.ports`` into an object."""
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value


async def list_pods(fake, **options):
    """Ask a fake server for one page."""
    ief = IefSession(
        fake.project_id,
        credentials=Token(fake.token),
        endpoint=fake.endpoint,
        retry=QUICK,
        **options,
    )
    async with ief:
        return await ief.list_pods(deployment_id=fake.deployment_ids[0], limit=10)


# ---- the schema --------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", ["", "null", '""', "7", "true", "[]", "{}"])
def test_row_without_id(id_):
    """A row whose id is missing, or is no text, is named by its index."""
    field = f'"id":{id_}' if id_ else '"name":"a"'
    error = fails_to_split(f'{{"count":2,"pods":[{{"id":"a"}},{{{field}}}]}}'.encode())

    assert "pods[1]" == error.path.removesuffix(".id")
    assert "pods[1]" in str(error)


def test_unknown_fields_are_skipped():
    """Fields that no model names are skipped at every depth, on both paths."""
    row = in_container(name="c", new={"deep": [1]}, ports=[{"host_port": 1, "new": 2}])
    row["new"] = [None]
    known = in_container(name="c", ports=[{"host_port": 1}])

    assert one(PODS, known) == one(PODS, row) == tolerant(PODS, row)


def test_unknown_state():
    """A state that nobody has heard of is kept as it came."""
    assert "HIBERNATING" == one(PODS, {"id": "a", "state": "HIBERNATING"}).state


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(Pod) if field.name != "id"])
def test_null_is_left_out(field):
    """Null is what a field that is left out is: None, or an empty sequence."""
    assert Pod(id="a") == one(PODS, {"id": "a", field: None})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("containers", MARKER, "tuple["),
        ("containers", {}, "tuple["),
        ("configs", [MARKER], "PodConfigs"),
        ("name", [MARKER], "str"),
        ("name", {"a": MARKER}, "str"),
        ("containers", [None], "Container"),
    ],
)
def test_wrong_type(field, value, expected):
    """A wrong type is named by its path and by what is expected, never by its value."""
    good = page(*[{"id": str(n)} for n in range(3)], {"id": "3", field: value})
    rows = split(good, key="pods")
    with pytest.raises(PayloadError) as caught:
        PODS.items(rows.raw, [3], key="pods")

    assert f"pods[3].{field}" == caught.value.path.removesuffix("[0]")
    assert expected in str(caught.value)
    assert MARKER not in everything_said(caught.value)


TIMES = {
    "2019-10-10T02:24:02.325Z": datetime(2019, 10, 10, 2, 24, 2, 325_000, UTC),
    "2018-07-16T13:41:25.347335": datetime(2018, 7, 16, 13, 41, 25, 347_335, UTC),
    "2020-08-11T01:23:55.527805447Z": datetime(2020, 8, 11, 1, 23, 55, 527_805, UTC),
    "2019-07-24T03:52:53.545185+08:00": datetime(2019, 7, 23, 19, 52, 53, 545_185, UTC),
    "2018-07-26T07:31:29+08:00": datetime(2018, 7, 25, 23, 31, 29, 0, UTC),
    "2022-06-07 08:21:05.794205 +0000 UTC": datetime(2022, 6, 7, 8, 21, 5, 794_205, UTC),
    "2020-07-08 01:23:25.845332209 +0000 UTC": datetime(2020, 7, 8, 1, 23, 25, 845_332, UTC),
    "1570674242": datetime(2019, 10, 10, 2, 24, 2, 0, UTC),
    "": None,
    "yesterday": None,
    "2019-13-40T02:24:02Z": None,
    "9" * 30: None,
}


@pytest.mark.parametrize(("text", "moment"), TIMES.items())
def test_times(text, moment):
    """Every known form of a time has a parsed twin, and its text is kept."""
    row = {"id": "a", "created_at": text, "updated_at": text}

    for pod in (one(PODS, row), tolerant(PODS, row)):
        assert (text, moment, text, moment) == (
            pod.created_at,
            pod.created,
            pod.updated_at,
            pod.updated,
        )


def test_times_as_null_and_number():
    """Null is no time, and epoch seconds may come as a number."""
    pod = one(PODS, {"id": "a", "created_at": None, "updated_at": 1570674242})

    assert (None, None, TIMES["1570674242"]) == (pod.created_at, pod.created, pod.updated)


def test_ids_are_not_normalised():
    """Blanks and case of an id are part of it."""
    ids = [" a ", "a", "A", "a\n"]
    rows = split(page(*[{"id": id_} for id_ in ids]), key="pods")

    assert ids == rows.ids == [pod.id for pod in PODS.items(rows.raw, range(4), key="pods")]


@pytest.mark.parametrize("path", [one, tolerant])
def test_names_of_python(path):
    """Keys named as Python's own inject nothing."""
    row = {"id": "a", "__class__": "x", "class": 1, "__init__": None, "self": 2, "cls": 3, "": 4}

    assert Pod(id="a") == path(PODS, row)
    assert Pod is type(path(PODS, row))


def test_many_errors_are_bounded():
    """Of 10,000 wrong values three are named, the others counted, in a bounded text."""
    error = refused(in_container(args=[[MARKER]] * 10_000))

    assert "pods[0].containers[0].args[0]" == error.path
    assert "and 9997 more" in str(error)
    assert 500 > len(str(error))
    assert MARKER not in everything_said(error)


def test_long_key_is_bounded():
    """A path through a map that the server filled is cut, as its keys may be of any length."""
    labels = {"labelSelector": {"matchLabels": {"k" * 100_000: [MARKER]}}}
    term = {"requiredDuringSchedulingIgnoredDuringExecution": [labels]}
    error = refused({"id": "a", "affinity": {"podAffinity": term}})

    assert 200 == len(error.path)
    assert 600 > len(str(error))


def test_long_text():
    """10 MB in one field are read as they are; the cap on the body bounds them."""
    assert 10_000_000 == len(one(PODS, {"id": "a", "message": "m" * 10_000_000}).message)


# ---- the traps of the contract ------------------------------------------------------------------

ODD = "containers.0."
LIMITS = ODD + "resources.limits."
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "values": ["v"]}]}]
        }
    },
    "podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "t"}
        ]
    },
}
NODE_TERM = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.0.matchExpressions.0"
POD_TERM = "requiredDuringSchedulingIgnoredDuringExecution.0"


def limits(**amounts):
    """Return a pod with these resources."""
    return in_container(resources={"limits": amounts})


TRAPS = [
    (1, limits(cpu=0.25), LIMITS + "cpu", 0.25),
    (1, limits(cpu="0.25"), LIMITS + "cpu", 0.25),
    (1, limits(memory=500), LIMITS + "memory", 500.0),
    (1, limits(memory="500"), LIMITS + "memory", 500.0),
    (1, limits(gpu=""), LIMITS + "gpu", None),
    (1, limits(npu="1e2"), LIMITS + "npu", 100.0),
    (1, limits(cpu="null"), LIMITS + "cpu", None),
    (1, limits(D310="1"), LIMITS + "D310", 1.0),
    (1, limits(D310B=2), LIMITS + "D310B", 2.0),
    (1, limits(D910=3.5), LIMITS + "D910", 3.5),
    (2, in_container(restarts="3"), ODD + "restarts", 3),
    (2, in_container(restarts=3.0), ODD + "restarts", 3),
    (2, in_container(restarts="03"), ODD + "restarts", 3),
    (2, in_container(restarts=""), ODD + "restarts", None),
    (2, in_container(ports=[{"host_port": "80"}]), ODD + "ports.0.host_port", 80),
    (
        2,
        in_container(liveness_probe={"http_get": {"port": "80"}}),
        ODD + "liveness_probe.http_get.port",
        80,
    ),
    (4, in_container(is_ready="false"), ODD + "is_ready", "false"),
    (4, in_container(is_ready=False), ODD + "is_ready", "false"),
    (4, in_container(is_ready=True), ODD + "is_ready", "true"),
    (4, in_container(privileged="false"), ODD + "privileged", False),
    (4, in_container(privileged="False"), ODD + "privileged", False),
    (4, in_container(privileged="TRUE"), ODD + "privileged", True),
    (4, in_container(privileged=0), ODD + "privileged", False),
    (4, in_container(privileged="1"), ODD + "privileged", True),
    (4, in_container(privileged=""), ODD + "privileged", None),
    (5, in_container(command=["a"], args=["b", "c"]), ODD + "command", ("a",)),
    (
        5,
        in_container(liveness_probe={"exec": {"command": "a b"}}),
        ODD + "liveness_probe.exec.command",
        "a b",
    ),
    (6, in_container(liveness_probe={"exec_command": "a"}), ODD + "liveness_probe.exec", None),
    (7, {"id": "a", "affinity": AFFINITY}, f"affinity.nodeAffinity.{NODE_TERM}.values", ("v",)),
    (7, {"id": "a", "affinity": AFFINITY}, f"affinity.podAntiAffinity.{POD_TERM}.topologyKey", "t"),
    (
        7,
        {"id": "a", "affinity": AFFINITY},
        f"affinity.podAntiAffinity.{POD_TERM}.labelSelector.matchLabels",
        {"a": "b"},
    ),
    (8, {"id": "a", "description": "d"}, "description", "d"),
    (8, {"id": "a"}, "deployment_id", None),
    (8, {"id": "a", "updated_at": "u"}, "updated_at", "u"),
    (8, {"id": "a", "configs": {"dns_policy": "Default"}}, "configs.dns_policy", "Default"),
    (8, in_container(volumes=[{"default_mode": 420}]), ODD + "volumes.0.default_mode", 420),
    (9, {"id": "a"}, "init_containers", ()),
    (9, {"id": "a"}, "affinity", None),
    (9, in_container(), ODD + "privileged", None),
    (10, {"id": "a", "reason": None}, "reason", None),
    (10, {"id": "a", "containers": None}, "containers", ()),
    (10, in_container(resources=None), ODD + "resources", None),
    (10, in_container(envs=None), ODD + "envs", ()),
    (11, {"id": "a", "reason": ""}, "reason", ""),
    (11, {"id": "a", "node_id": ""}, "node_id", ""),
    (11, in_container(image_url=""), ODD + "image_url", ""),
    (12, in_container(envs=[{"name": "n", "value_from": {}}]), ODD + "envs.0.value", None),
    (12, in_container(envs=[{"name": "n", "value": ""}]), ODD + "envs.0.value", ""),
    (12, in_container(envs=[{"name": "n", "value": 5}]), ODD + "envs.0.value", "5"),
    (
        13,
        in_container(liveness_probe={"http_get": {"scheme": "http"}}),
        ODD + "liveness_probe.http_get.scheme",
        "http",
    ),
    (13, {"id": "a", "state": "NEW"}, "state", "NEW"),
    (14, in_container(npu_type=""), ODD + "npu_type", ""),
    (14, in_container(npu_type="D910"), ODD + "npu_type", "D910"),
    (14, in_container(volumes=[{"name": "log-volume"}]), ODD + "volumes.0.name", "log-volume"),
]


@pytest.mark.parametrize("path", [one, tolerant])
@pytest.mark.parametrize(("trap", "row", "where", "value"), TRAPS)
def test_traps(trap, row, where, value, path):
    """Traps 1 to 14: what sources disagree about has one meaning, whichever way a row takes."""
    found = dig(path(PODS, row), where)

    assert (trap, repr(value)) == (trap, repr(found))


@pytest.mark.parametrize(
    ("row", "where"),
    [
        (in_container(restarts="many"), "containers[0].restarts"),
        (in_container(restarts=80.5), "containers[0].restarts"),
        (in_container(restarts=True), "containers[0].restarts"),
        (in_container(privileged="yes"), "containers[0].privileged"),
        (in_container(privileged=2), "containers[0].privileged"),
        (limits(cpu=True), "containers[0].resources.limits.cpu"),
        (in_container(args="sleep 1000"), "containers[0].args"),
        (in_container(args=["a", None]), "containers[0].args[1]"),
        (
            in_container(liveness_probe={"exec": {"command": ["a"]}}),
            "containers[0].liveness_probe.exec.command",
        ),
    ],
)
def test_what_no_path_takes(row, where):
    """Traps 2, 4, 5: what means nothing is refused; the vendor's SDK makes something of it."""
    assert f"pods[0].{where}" == refused(row).path


def test_contradictions_are_brought_together():
    """Traps 1 to 15: a pod in which every known contradiction stands equals the documented one."""
    rows = split(CONTRADICTIONS, key="pods")
    documented, contradicted = PODS.items(rows.raw, [0, 1], key="pods")

    assert (2, ["documented", "contradicted"]) == (rows.count, rows.ids)
    assert repr(attrs.evolve(documented, id="")) == repr(attrs.evolve(contradicted, id=""))


# ---- what a refusal says ------------------------------------------------------------------------


def test_path_of_a_port():
    """The path of a wrong value is exact: index by index, as a reader would write it."""
    bad = {"ports": [{"host_port": 1}, {"host_port": MARKER, "container_port": 2}]}
    body = page(*[{"id": str(n)} for n in range(3)], {"id": "3", "containers": [bad]})
    with pytest.raises(PayloadError) as caught:
        PODS.items(split(body, key="pods").raw, [3], key="pods")
    error = caught.value

    assert "pods[3].containers[0].ports[1].host_port" == error.path
    assert f"{error.path} is not int | None" in str(error)
    assert MARKER not in everything_said(error)
    assert (None, None) == (error.__cause__, error.__context__)


def test_rows_before_a_bad_one_are_delivered():
    """Rows before a bad one come first; the next call, which begins with it, raises."""
    rows = split(page({"id": "a"}, {"id": "b"}, {"id": "c", "name": []}, {"id": "d"}), key="pods")

    assert ["a", "b"] == [pod.id for pod in PODS.items(rows.raw, range(4), key="pods")]
    with pytest.raises(PayloadError) as caught:
        PODS.items(rows.raw, [2, 3], key="pods")
    assert "pods[2].name" == caught.value.path
    assert ["d"] == [pod.id for pod in PODS.items(rows.raw, [3], key="pods")]


def test_only_odd_rows_take_the_tolerant_path(monkeypatch):
    """One odd row among a hundred costs one structuring by cattrs; the others keep the fast way."""
    asked = []
    by_cattrs = PODS._tolerant

    def counting(document, model):
        asked.append(document["id"])
        return by_cattrs(document, model)

    monkeypatch.setattr(PODS, "_tolerant", counting)
    rows = split(
        page(*[{"id": str(n), "name": 5 if n == 50 else "5"} for n in range(100)]), key="pods"
    )
    pods = PODS.items(rows.raw, range(100), key="pods")

    assert ["50"] == asked
    assert [Pod(id=str(n), name="5") for n in range(100)] == pods


def flaky(*kinds):
    """Return the structure of a model that raises these, one at each first object of an id."""
    left = dict(zip("abcdef", kinds, strict=False))

    @attrs.frozen
    class Flaky:
        id: str
        x: int = 0

        def __attrs_post_init__(self):
            if (kind := left.pop(self.id, None)) is not None:
                raise kind(MARKER)

    # what a page is decoded with at once is left out: each row is built once before cattrs
    structure = Structure(Flaky)
    structure._page = msgspec.json.Decoder(list[int])
    return structure


def test_what_a_model_raises_on_the_fast_path_is_counted_by_its_class():
    """Rows that cattrs builds after the model raised are items, and are counted by exception."""
    structure = flaky(ValueError, TypeError, KeyError, KeyError)
    counted = Counter()
    rows = rows_of(*({"id": one} for one in "abcde"))
    items = structure.items(rows, range(5), key="pods", model_errors=counted)

    assert ["a", "b", "c", "d", "e"] == [item.id for item in items]
    assert {"ValueError": 1, "TypeError": 1, "KeyError": 2} == counted


def test_what_msgspec_refuses_is_no_error_of_the_model():
    """Wrong types, a lone surrogate and deep nesting count as nothing that the model raised."""
    counted = Counter()
    deep = b'{"id": "d", "unknown": %b1%b}' % (b"[" * 5_000, b"]" * 5_000)
    rows = rows_of({"id": "a", "x": "null"}, {"id": "b", "x": ""}, rb'{"id": "\ud800"}', deep)
    structure = flaky()
    for at in range(len(rows)):
        with contextlib.suppress(PayloadError):
            structure.items(rows, [at], key="pods", model_errors=counted)

    assert {} == counted


def test_a_row_that_ends_a_call_is_counted_by_the_next_one():
    """A model that refuses a row in both ways counts it where its error is raised: once."""

    @attrs.frozen
    class Strict:
        id: str = attrs.field(validator=attrs.validators.in_(["a", "c"]))

    structure, counted = structure_of(Strict), Counter()
    rows = rows_of({"id": "a"}, {"id": "b"}, {"id": "c"})
    before = structure.items(rows, range(3), key="pods", model_errors=counted)

    assert (["a"], {}) == ([item.id for item in before], dict(counted))
    with pytest.raises(PayloadError):
        structure.items(rows, [1, 2], key="pods", model_errors=counted)
    assert {"ValueError": 1} == counted


def test_positions_choose_rows():
    """Any rows may be asked for, in any order, and none."""
    rows = split(page(*[{"id": str(n)} for n in range(5)]), key="pods")

    assert ["4", "0"] == [pod.id for pod in PODS.items(rows.raw, [4, 0], key="pods")]
    assert [] == PODS.items(rows.raw, [], key="pods")


def test_plain_converter_agrees():
    """The documented example structured by a plain cattrs.Converter equals ours."""
    rows = split(DOCUMENTED, key="pods")
    plain = cattrs.Converter().structure(json.loads(DOCUMENTED), PodList)
    ours = PodList(count=rows.count, pods=tuple(PODS.items(rows.raw, [0], key="pods")))

    assert plain == ours
    assert ours.pods[0] == tolerant(PODS, bytes(rows.raw[0]))


# ---- model= -------------------------------------------------------------------------------------


@attrs.frozen
class Five:
    """Five flat fields."""

    id: str
    name: str
    state: str
    node_id: str
    created_at: str


@attrs.define(slots=False)
class Ports:
    """No id, a dict class, own nested classes."""

    @attrs.frozen
    class Inner:
        """A container of one field."""

        restarts: int = -1

    containers: tuple[Inner, ...] = ()
    zone: str = "unknown"


@attrs.define
class Tree:
    """A class that holds itself."""

    id: str
    children: "tuple[Tree, ...]" = ()
    parent: "Tree | None" = None


@attr.s
class Old:
    """The old style."""

    id = attr.ib(type=str)
    restarts = attr.ib(type=int, default=3)
    rest = attr.ib(default=None)


@attr.s(auto_attribs=True)
class OldAnnotated:
    """The old style with annotations."""

    id: str
    restarts: int = 3


@attrs.frozen
class Box(Generic[T]):
    """A generic class."""

    id: str
    value: T


class Colour(enum.Enum):
    """An enum of texts."""

    RED = "red"


class Level(enum.IntEnum):
    """An enum of numbers."""

    LOW = 1


class Mood(enum.StrEnum):
    """An enum that is a text."""

    GOOD = "good"


@attrs.define(init=False)
class OwnInit:
    """A class with an ``__init__`` of its own."""

    id: str

    def __init__(self, id):  # noqa: A002  named as the field
        """Mark that it ran."""
        self.__attrs_init__(f"{id}!")


@attrs.define
class PostInit:
    """A class with a hook of attrs."""

    id: str

    def __attrs_post_init__(self):
        """Mark that it ran."""
        self.id += "!"


@attrs.define
class Derived:
    """A default that takes the object."""

    id: str
    label: str = attrs.field()

    @label.default
    def _label(self):
        return f"<{self.id}>"


def of_one(annotation, **options):
    """Return a class with an id and a field x."""
    fields = {"id": attrs.field(type=str), "x": attrs.field(type=annotation, **options)}
    return attrs.make_class("Made", fields)


def read_x(annotation, value, **options):
    """Return what x becomes, on both paths."""
    structure = structure_of(of_one(annotation, **options))
    row = {"id": "a", "x": value}
    found, by_cattrs = one(structure, row), tolerant(structure, row)
    assert repr(by_cattrs) == repr(found)
    return found.x


def test_five_fields():
    """A class of five fields is given those five, on both paths."""
    (raw,) = rows_of(json.loads(DOCUMENTED)["pods"][0])
    structure = structure_of(Five)
    pod = one(structure, raw)

    assert ("app-test-69f9dc4b67-wfwn6", "RUNNING") == (pod.name, pod.state)
    assert pod == tolerant(structure, raw)


def test_nested_without_id():
    """A class needs no id, may be no slotted one, and may hold classes of its own."""
    row = in_container(restarts="2", name="c")

    assert Ports((Ports.Inner(2),), "unknown") == one(structure_of(Ports), row)
    assert Ports((Ports.Inner(-1),)) == one(structure_of(Ports), in_container(restarts=""))
    assert Ports() == one(structure_of(Ports), {"id": "a", "containers": None, "zone": None})


def test_field_that_the_server_lacks():
    """A field that is not in the answer has its default, or is missing."""
    error = refused({"id": "a", "name": "b"}, structure_of(Five))

    assert "pods[0].state is missing" in str(error)
    assert "pods[0].state" == error.path


CONTAINERS = [
    (dict[str, int], {"a": "1"}, {"a": 1}),
    (dict, {"a": 1}, {"a": 1}),
    (Mapping[str, int], {"a": "1"}, {"a": 1}),
    (dict[str, Any], {"a": [10**30]}, {"a": [10**30]}),
    (list[int], ["1", 2], [1, 2]),
    (list, ["1", 2], ["1", 2]),
    (set[str], ["5", 5], {"5"}),
    (frozenset[int], [1, "1"], frozenset({1})),
    (Sequence[str], ["a"], ("a",)),
    (tuple[float, ...], ["1", 2], (1.0, 2.0)),
    (Any, {"a": [None, 1.5]}, {"a": [None, 1.5]}),
    (Literal["a", "b"], "b", "b"),
    (Colour, "red", Colour.RED),
    (Level, 1, Level.LOW),
    (Level, "1", Level.LOW),
    (Mood, "good", Mood.GOOD),
    (Colour | None, None, None),
    (int | str, 5, 5),
    (int | str, "5", "5"),
    (float | str | None, None, None),
    (float | str, 5, 5.0),
    (int | bool, "false", False),
    (int | None, "", None),
    (NewType("Port", int), "80", 80),
    (typing.Annotated[int, "a port"], "80", 80),
    (typing.Annotated[int | None, "a port"], None, None),
    (datetime, "2019-10-10T02:24:02.325Z", TIMES["2019-10-10T02:24:02.325Z"]),
    (datetime, "2018-07-16T13:41:25.347335", TIMES["2018-07-16T13:41:25.347335"]),
    (datetime, 1570674242, TIMES["1570674242"]),
    (datetime | None, "", None),
    (Tree | None, {"id": "t", "children": [{"id": 5}]}, Tree("t", (Tree("5"),))),
    (Five | Tree, {"id": "t", "children": []}, Tree("t")),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), CONTAINERS, ids=str)
def test_types_of_fields(annotation, value, expected):
    """Fields may have any type that JSON can hold, and mean the same on both paths."""
    assert repr(expected) == repr(read_x(annotation, value))


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        *[
            (kind, "ab")
            for kind in (
                list,
                list[str],
                set,
                set[str],
                frozenset[str],
                tuple,
                Sequence[str],
                tuple[str, ...],
                dict,
            )
        ],
        (list[str], {"a": 1}),
        (dict, []),
        (dict, [["a", 1]]),
        (dict[str, int], []),
        (dict[str, int], {"a": "x"}),
        (Literal["a"], "b"),
        (Colour, "blue"),
        (Level, 7),
        (Mood, "bad"),
        (int | str, []),
        (datetime, "yesterday"),
        (datetime, True),
        (bytes, 5),
        (Tree, []),
        (set[Any], [[]]),
    ],
    ids=str,
)
def test_types_that_do_not_fit(annotation, value):
    """What a field can't hold is a PayloadError at that field; a text is never spelt out."""
    assert refused({"id": "a", "x": value}, structure_of(of_one(annotation))).path.startswith(
        "pods[0].x"
    )


def test_attrs_features():
    """Converters, aliases, fields that are no arguments, hooks and defaults work as attrs says."""
    assert 8 == read_x(int, 4, converter=lambda value: value * 2)
    assert 4 == read_x(int, 4, alias="y")
    assert 7 == read_x(int, 4, init=False, default=7)
    assert [] == read_x(list[str], None, factory=list)
    for model in (OwnInit, PostInit):
        assert "a!" == one(structure_of(model), {"id": "a"}).id
        assert "a!" == tolerant(structure_of(model), {"id": "a"}).id
    assert "<a>" == one(structure_of(Derived), {"id": "a"}).label


@pytest.mark.parametrize("kind", [ValueError, TypeError, LookupError, AssertionError, KeyError])
def test_validators(kind):
    """Whatever a validator raises is a PayloadError that shows neither its text nor the value."""

    def positive(_, __, value):
        if value != "good":
            raise kind(value)

    structure = structure_of(of_one(str, validator=positive))
    error = refused({"id": "a", "x": MARKER}, structure)

    assert "good" == one(structure, {"id": "a", "x": "good"}).x
    assert "pods[0]" == error.path
    assert "missing" not in str(error)
    assert MARKER not in everything_said(error)


def test_styles_of_attrs():
    """Old and new classes, recursive and generic ones are all attrs classes."""
    assert Old("a", 5, [1]) == one(structure_of(Old), {"id": "a", "restarts": "5", "rest": [1]})
    assert OldAnnotated("a", 5) == one(structure_of(OldAnnotated), {"id": "a", "restarts": "5"})
    assert Tree("a", (Tree("b"),), Tree("c")) == one(
        structure_of(Tree), {"id": "a", "children": [{"id": "b"}], "parent": {"id": "c"}}
    )
    assert Box("a", 5) == one(structure_of(Box[int]), {"id": "a", "value": "5"})
    assert structure_of(Five) is structure_of(Five)


@attrs.define
class Unresolved:
    """A class whose annotation names nothing."""

    id: "Nowhere"  # noqa: F821  the point


UNFIT = [socket.socket, complex, Callable, type, T, tuple[str, int], list[int] | dict[str, int]]


@pytest.mark.parametrize(
    "model",
    [
        *[of_one(kind) for kind in UNFIT],
        *[of_one(kind[socket.socket]) for kind in (list, set)],
        of_one(dict[str, socket.socket]),
        of_one(tuple[socket.socket, ...]),
        of_one(socket.socket | None),
        of_one(of_one(socket.socket)),
        Unresolved,
        Box,
    ],
)
def test_class_that_json_cannot_hold(model):
    """A class with a field that no JSON can fill is refused at once, by its name."""
    with pytest.raises(
        ConfigurationError, match=rf"^model must have .*got {model.__name__}: "
    ) as caught:
        structure_of(model)
    assert caught.value.__context__ is None


@dataclass
class NoAttrs:
    """A dataclass."""

    id: str


@pytest.mark.parametrize(
    "model", [dict, {}, [], None, 5, "Pod", NoAttrs, Pod(id="a"), list[int], object]
)
def test_no_attrs_class(model):
    """What is no attrs class is refused at once."""
    with pytest.raises(ConfigurationError, match="model must be an attrs class, got"):
        structure_of(model)


# ---- the two paths mean the same ----------------------------------------------------------------


def agree(row, structure=PODS):
    """Hold the two paths equal on a row that the fast one takes; return what it gives, or None."""
    try:
        fast = structure._row.decode(row)
    except Exception:  # noqa: BLE001  refused, in whatever words
        with contextlib.suppress(PayloadError):
            structure.items([row], [0], key="pods")
        return None
    assert repr(structure.item_tolerantly(row, "pods[0]")) == repr(fast)
    assert repr(structure.items([row], [0], key="pods")) == repr([fast])
    if "nan" not in repr(fast):
        assert structure.item_tolerantly(row, "pods[0]") == fast
    return fast


@pytest.mark.parametrize("kind", [str, int, float, bool, Any])
@pytest.mark.parametrize("shape", ["plain", "optional", "list", "map", "nested"])
def test_every_twist_of_every_type(kind, shape):
    """Every odd value in a field of every plain type means the same on both paths, or nothing."""
    annotation = {
        "plain": kind,
        "optional": kind | None if kind is not Any else Any,
        "list": list[kind],
        "map": dict[str, kind | None if kind is not Any else Any],
        "nested": tuple[of_one(kind), ...],
    }[shape]
    wrap = {
        "list": lambda value: [value],
        "map": lambda value: {"k": value},
        "nested": lambda value: [{"id": "b", "x": value}],
    }.get(shape, lambda value: value)
    structure = structure_of(of_one(annotation))
    taken = [agree(*rows_of({"id": "a", "x": wrap(value)}), structure) for value in TWISTS]

    assert structure._row is not None
    assert any(taken)


@settings(max_examples=examples(600))
@given(objects(Pod), st.booleans())
def test_both_paths_mean_the_same(pod, tidy):
    """Whatever JSON stands for a pod: what both paths take they take alike, else PayloadError."""
    agree(json.dumps({"id": "a", **pod} if tidy else pod).encode())


@settings(max_examples=examples(300))
@given(st.lists(objects(Pod), max_size=4), st.data())
def test_a_page_is_its_rows(pods, data):
    """A page gives, or refuses, what its rows give one by one, whatever stands beside them."""
    rows = split(page(*[{**pod, "id": str(n)} for n, pod in enumerate(pods)]), key="pods").raw
    apart, at = [], data.draw(st.integers(0, len(rows)))
    for position in range(at, len(rows)):
        try:
            apart += PODS.items(rows, [position], key="pods")
        except PayloadError:
            break
    try:
        together = PODS.items(rows, range(at, len(rows)), key="pods")
    except PayloadError:
        together = []

    assert repr(apart) == repr(together)


@settings(max_examples=examples(800))
@given(
    st.binary(max_size=40)
    | st.tuples(
        st.sampled_from([DOCUMENTED, CONTRADICTIONS, page({"id": "\ud800"})]), st.data()
    ).map(lambda pair: damaged(*pair))
)
def test_any_bytes(body):
    """Whatever bytes come, nothing but an IefError leaves."""
    found, failure = [], None
    try:
        rows = split(body, key="pods")
        found = PODS.items(rows.raw, range(len(rows.raw)), key="pods")
    except IefError as error:
        failure = error

    assert all(type(pod) is Pod for pod in found)
    assert failure is None or (PayloadError, None) == (type(failure), failure.__context__)


def damaged(body, data):
    """Cut out a piece of a body and put another one there."""
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 12)))
    piece = data.draw(
        st.binary(max_size=4) | st.sampled_from([b"null", b'"\\ud800"', b"1e999", b'"', b"{"])
    )
    return body[:start] + piece + body[end:]


def test_infinity_as_a_text():
    """Texts for no finite number are read as floats by both paths, as the module says."""
    found = [one(PODS, limits(cpu=text)) for text in ("nan", "-inf")]

    assert math.isnan(dig(found[0], LIMITS + "cpu"))
    assert -math.inf == dig(found[1], LIMITS + "cpu")


# ---- plain rows in one pass ----


@attrs.frozen
class Flat:
    """A row of plain fields alone, which is made with its whole page."""

    id: str
    state: str | None = None
    restarts: int | None = None


@attrs.frozen
class Nested:
    """The same, by way of a row that is taken apart first."""

    id: str
    state: str | None = None
    restarts: int | None = None
    more: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("body", "at_once"),
    [
        (b'{"count": 2, "pods": [{"id": "a", "state": "RUNNING"}, {"id": "b"}]}', True),
        (b'{"count": "2", "pods": [{"id": "a", "restarts": "7"}, {"id": "b", "x": [{}]}]}', True),
        (b'{"pods": [{"id": "a"}], "more": {}}', True),
        (b'{"count": 0, "pods": []}', True),
        (b'{"count": 0, "pods": null}', False),
        (b'\xef\xbb\xbf{"count": 1, "pods": [{"id": "a"}]}', False),
        (b'{"count": 1, "pods": [{"id": "a", "state": 5}]}', False),
        (b'{"count": 1, "pods": [{"id": "a", "restarts": ""}]}', False),
    ],
)
def test_a_page_of_plain_rows_is_made_at_once(body, at_once):
    """It is what it would be row by row; a page with an odd row is taken apart instead."""
    pages = [(cls, structure_of(cls).read(body, key="pods")) for cls in (Flat, Nested)]
    (flat, rows), (nested, apart) = pages

    assert (rows.count, rows.ids) == (apart.count, apart.ids)
    assert at_once == (rows.items is not None)
    assert apart.items is None
    every = range(len(rows.ids))
    wanted = structure_of(nested).items(apart.raw, every, key="pods")
    made = rows.items if at_once else structure_of(flat).items(rows.raw, every, key="pods")
    assert [attrs.astuple(row)[:3] for row in wanted] == [attrs.astuple(row) for row in made]


@pytest.mark.parametrize(
    "body",
    [
        b'{"count": "null", "pods": [{"id": "a"}]}',
        b'{"count": 1.5, "pods": [{"id": "a"}]}',
        b'{"count": 1, "pods": [{"id": ""}]}',
        b'{"count": 1, "pods": [{"id": 5}]}',
        b'{"count": 1, "pods": [{}]}',
        b'{"count": 1, "pods": "null"}',
        b'{"count": 1}',
        b"<html>",
        b"",
    ],
)
def test_what_is_refused_is_refused_of_plain_rows_too(body):
    """Reading at once is no way around what an answer has to be."""
    with pytest.raises(PayloadError) as apart:
        split(body, key="pods")
    with pytest.raises(PayloadError) as at_once:
        structure_of(Flat).read(body, key="pods")

    assert str(apart.value) == str(at_once.value)
