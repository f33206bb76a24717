"""What a wrong argument is told."""

import math
from typing import Literal

import attrs
import pytest

from ief_async import ConfigurationError, Limits, ScanCheckpoint
from ief_async._arguments import check_choice, check_kind, check_number, is_number


@pytest.mark.parametrize(
    ("value", "bounds", "said"),
    [
        (0, {"least": 1, "whole": True}, "n must be an integer >= 1, got 0"),
        (11, {"least": 1, "most": 10, "whole": True}, "n must be an integer from 1 to 10, got 11"),
        (1.5, {"whole": True}, "n must be an integer >= 0, got 1.5"),
        (0, {"more": True}, "n must be a finite number > 0, got 0"),
        (-1, {}, "n must be a finite number >= 0, got -1"),
        (math.nan, {}, "n must be a finite number >= 0, got nan"),
        (math.inf, {}, "n must be a finite number >= 0, got inf"),
        (True, {"whole": True}, "n must be an integer >= 0, got True"),
        ("7", {"whole": True}, "n must be an integer >= 0, got '7'"),
        (None, {}, "n must be a finite number >= 0, got None"),
    ],
)
def test_number_out_of_bounds_is_told_the_bounds(value, bounds, said):
    """The text names the argument, what it must be, and what it is."""
    with pytest.raises(ConfigurationError) as caught:
        check_number("n", value, **bounds)

    assert said == str(caught.value)


@pytest.mark.parametrize(
    ("value", "bounds"),
    [(0, {}), (1, {"least": 1, "most": 1, "whole": True}), (0.1, {"more": True})],
)
def test_number_within_bounds_is_accepted(value, bounds):
    """Bounds belong to what is allowed, except below a number that must be larger."""
    check_number("n", value, **bounds)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (1, bool, "x must be True or False, got int"),
        (1, str, "x must be a string, got int"),
        (1, str | None, "x must be a string or None, got int"),
        ({}, Limits, "x must be a Limits, got dict"),
        ("a", ScanCheckpoint | None, "x must be a ScanCheckpoint or None, got str"),
    ],
)
def test_wrong_kind_is_told_the_kinds(value, kind, said):
    """Kinds are named in words; the value, which may be a secret, is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        check_kind("x", value, kind)

    assert said == str(caught.value)


@pytest.mark.parametrize("value", ["c", "", None, 1, ["a"]])
def test_wrong_choice_is_told_the_choices(value):
    """Every choice is listed as it is written."""
    with pytest.raises(ConfigurationError) as caught:
        check_choice("x", value, Literal["a", "b"])

    assert f"x must be one of 'a', 'b', got {value!r}" == str(caught.value)


def test_long_value_is_shown_in_part():
    """Of a value no more than 80 characters are repeated."""
    with pytest.raises(ConfigurationError) as caught:
        check_choice("x", "y" * 1_000, Literal["a"])

    assert len(str(caught.value)) < 120


def test_attribute_is_named_with_its_class():
    """A validator of an attrs class names the argument of its constructor."""

    @attrs.frozen
    class Row:
        size: int | None = attrs.field(validator=is_number(least=1, whole=True, optional=True))

    Row(None)
    with pytest.raises(ConfigurationError, match=r"^Row\(size=\) must be an integer >= 1, got 0$"):
        Row(0)
