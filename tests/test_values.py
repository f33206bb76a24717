"""Values compare, hash and print as attrs itself would have them."""

import math

import attrs
import pytest

from ief_async._values import Value


def pair(base, **options):
    """Return a class and a frozen subclass of it, each with fields of every kind."""

    @attrs.frozen(kw_only=True, **options)
    class Thing(base):
        id: str
        size: float = 0.0
        secret: str = attrs.field(default="hidden", repr=False)
        shown: str = attrs.field(default="long", repr=lambda text: text[0])
        unhashed: dict[str, int] = attrs.field(factory=dict, hash=False)
        uncompared: int = attrs.field(default=0, eq=False)

    class Own(Thing):
        __slots__ = ()

    return Thing, Own


OURS, THEIRS = pair(Value, eq=False, repr=False), pair(object)
SAMPLES = [
    {"id": "a"},
    {"id": "a", "unhashed": {"x": 1}},
    {"id": "a", "uncompared": 7},
    {"id": "b", "size": 1.5, "secret": "x", "shown": "yes"},
    {"id": "a", "size": math.nan},
]


@pytest.mark.parametrize("given", SAMPLES)
@pytest.mark.parametrize("other", SAMPLES)
@pytest.mark.parametrize(("one", "two"), [(0, 0), (0, 1), (1, 1)])
def test_equality_and_hash_are_as_attrs_makes_them(given, other, one, two):
    """Two values are equal, and their hashes are, where they would be with attrs' own methods."""
    ours, theirs = [(kinds[one](**given), kinds[two](**other)) for kinds in (OURS, THEIRS)]

    assert (theirs[0] == theirs[1]) is (ours[0] == ours[1])
    assert (theirs[0] != theirs[1]) is (ours[0] != ours[1])
    if ours[0] == ours[1] and given.get("unhashed") == other.get("unhashed"):
        assert hash(ours[0]) == hash(ours[1])


@pytest.mark.parametrize("given", SAMPLES)
@pytest.mark.parametrize("at", [0, 1])
def test_repr_is_as_attrs_makes_it(given, at):
    """A value prints the fields that attrs prints, each in its own way."""
    assert repr(THEIRS[at](**given)) == repr(OURS[at](**given))


def test_a_value_within_itself_is_printed_once():
    """The repr of a value that holds itself ends, with three dots, as that of attrs does."""
    shown = []
    for thing, _ in (OURS, THEIRS):
        value = thing(id="a")
        value.unhashed["itself"] = value
        shown.append(repr(value))

    assert shown[1] == shown[0]
    assert "{'itself': ...}" in shown[0]


def test_a_value_is_not_equal_to_other_things():
    """Comparing with an object of another class is left to that class."""
    assert OURS[0](id="a") != "a"
    assert OURS[0](id="a").__eq__("a") is NotImplemented
