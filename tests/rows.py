"""Rows of JSON: as a page has them, and drawn for an attrs class."""

import json
import traceback
import typing

import attrs
from hypothesis import strategies as st


def rows_of(*rows):
    """Return rows as a page holds them."""
    return [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]


TWISTS = [
    *(None, True, False, [], {}, [None], [1], ["a"], [[]], {"id": 1}, {"": None}, {"name": "n"}),
    *(0, 1, -1, 2, 80, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**20, 10**40, 10**310),
    *(0.0, -0.0, 0.5, 5.0, -5.0, 1e18, 1e19, 1e22, 1.5e300, 2**53 + 2.0),
    *("null", "NULL", "None", "nan", "NaN", "-inf", "Infinity", "true", "TRUE", "tRue", "false"),
    *("0", "1", "2", "-0", "00", "01", "05", "-05", "+5", "5.0", "5.", ".5", "-0.0", "00.5", "yes"),
    *("1e5", "1E5", "1e400", "1e-400", "1_0", "0x10", "٣", "", " 5", "5 ", "9" * 20, "9" * 5_000),
    *("é", "边", "\U0001f600", "\ud800", "\udfff\ud800", "\0", '"', "\\", "x" * 300),
]
texts = st.text(st.characters(codec=None), max_size=8)
scalars = st.sampled_from(TWISTS) | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
junk = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
plain = {
    str: texts,
    int: st.integers(0, 70_000) | st.integers(0, 99).map(str),
    float: st.floats(0, 1e6) | st.integers(0, 9) | st.floats(0, 1e6).map(str),
    bool: st.booleans() | st.sampled_from(["true", "false"]),
}


@st.composite
def values(draw, annotation):
    """Draw a value for a type: mostly a fitting one."""
    if draw(st.integers(0, 9)) == 0:
        return draw(junk)
    inner = [kind for kind in typing.get_args(annotation) if kind not in {type(None), ...}]
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return draw(st.lists(values(inner[0]), max_size=2))
    if origin is dict:
        return draw(st.dictionaries(texts, values(inner[1]), max_size=2))
    if inner:
        return draw(values(inner[0]))
    return draw(plain[annotation]) if annotation in plain else draw(objects(annotation))


@st.composite
def objects(draw, model):
    """Draw a JSON object for an attrs class: a few of its fields, now and then strange ones."""
    fields = draw(
        st.lists(
            st.sampled_from(attrs.fields(model)), max_size=3, unique_by=lambda field: field.name
        )
    )
    drawn = {field.name: draw(values(field.type)) for field in fields}
    if draw(st.integers(0, 4)) == 0:
        drawn |= draw(st.dictionaries(texts | st.just("__class__"), junk, max_size=2))
    return drawn


def one(structure, row):
    """Return the one object of a row."""
    (item,) = structure.items(rows_of(row), [0], key="pods")
    return item


def tolerant(structure, row):
    """Return the one object of a row by cattrs alone."""
    return structure.item_tolerantly(*rows_of(row), "pods[0]")


def page(*rows, count=None):
    """Return a body."""
    return json.dumps({"count": len(rows) if count is None else count, "pods": rows}).encode()


def everything_said(error):
    """Return all texts that an error carries, those of the errors behind it included."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), repr(error.args), repr(vars(error))]
        texts += [*getattr(error, "__notes__", ()), *traceback.format_exception(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
