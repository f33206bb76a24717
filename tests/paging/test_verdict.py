"""What is said of a batch that was read to its end."""

import pytest

from ief_async._paging.verdict import FLAG_NAMES, BatchReport, Verdict

FINE = {
    "proven": True,
    "overlapped": True,
    "missing": False,
    "count_is_constant": True,
    "counted": True,
}


def judged(on_drift="repair", *, facts=None, flags=(), **counts):
    """Return the verdict on what is fine but for these facts, flags and counts."""
    verdict = Verdict(**counts)
    for flag in flags:
        setattr(verdict.flags, flag, True)
    verdict.judge(on_drift, **FINE | (facts or {}))
    return verdict.drift, verdict.flags.names()


def test_calm_list_is_exact():
    """A list whose end was shown by an anchored page, and that did not move, is exact."""
    assert ("exact", ()) == judged()


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ({"count_is_constant": False}, {}),
        ({"count_is_constant": False, "counted": False}, {}),
        ({}, {"moved": True}),
        ({}, {"re_reads": 1}),
    ],
)
def test_change_makes_it_repaired(facts, counts):
    """Any sign of a change is told, though all that stayed is there."""
    assert ("repaired", ()) == judged(facts=facts, **counts)


@pytest.mark.parametrize(
    ("facts", "flags", "counts", "told"),
    [
        ({"proven": False}, (), {}, ()),
        ({"overlapped": False}, (), {}, ("no_overlap",)),
        ({"missing": True}, (), {}, ("short_of_count",)),
        ({}, (), {"ended_below_count": True}, ("short_of_count",)),
        (
            {"count_is_constant": False},
            (),
            {"ended_below_count": True},
            ("short_of_count",),
        ),
        ({}, ("gap",), {}, ("gap",)),
        ({}, ("offset_ignored",), {}, ("offset_ignored",)),
        ({"proven": False, "counted": False}, ("order",), {}, ("order",)),
    ],
)
def test_doubt_makes_it_unknown(facts, flags, counts, told):
    """Each reason to doubt makes it unknown, and stands in the flags."""
    assert ("unknown", told) == judged(facts=facts, flags=flags, **counts)


def test_counts_that_differ_outweigh_missing_rows():
    """Fewer rows than the least count is no doubt where the count moved while it was read."""
    facts = {"missing": True, "count_is_constant": False}

    assert ("repaired", ("short_of_count",)) == judged(facts=facts)


def test_counted_rows_outweigh_their_order():
    """Rows that changed places are all there if just as many came as every answer counted."""
    assert ("repaired", ("order", "counted")) == judged(facts={"proven": False}, flags=("order",))


def test_unchecked_list_is_unknown():
    """Where nothing is checked, nothing is promised."""
    assert ("unknown", ("unchecked",)) == judged("ignore")


def test_flags_are_told_in_one_order():
    """Flags come in the order of their declaration, and the report explains each of them."""
    verdict = Verdict()
    for name in reversed(FLAG_NAMES):
        setattr(verdict.flags, name, True)

    assert FLAG_NAMES == verdict.flags.names()
    assert all(f"``{name}``" in BatchReport.__doc__ for name in FLAG_NAMES)
