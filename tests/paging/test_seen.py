"""The ids of a batch, kept in few bytes."""

import tracemalloc
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ief_async._paging.seen import MOST_FAST, IdSet

some_ids = st.lists(st.text("abc", min_size=1, max_size=2), max_size=8)


@given(
    expected=st.sampled_from([0, MOST_FAST + 1]),
    pages=st.lists(some_ids, max_size=12),
    asked=some_ids,
)
def test_it_is_a_set(expected, pages, asked):
    """It holds what a set of texts would, few or many; a page that is not all new adds nothing."""
    ids, texts = IdSet(), set()
    ids.expect(expected)
    for page in pages:
        new = texts.isdisjoint(page) and len(page) == len(set(page))
        assert new == ids.add(page)
        if not new:
            ids.update(page)
        texts.update(page)
        assert len(texts) == len(ids)

    assert texts.isdisjoint(asked) == ids.isdisjoint(asked)
    assert texts.issuperset(asked) == ids.issuperset(asked)


@given(expected=st.integers(0, 2_000_000), pages=st.lists(some_ids, max_size=5))
def test_what_is_expected_changes_nothing(expected, pages):
    """Room that was made, or could not be any more, shows in no answer; and it is bounded."""
    ids, plain = IdSet(), IdSet()
    ids.expect(expected)
    for page in pages:
        assert plain.add(page) == ids.add(page)
        ids.expect(expected)

    assert len(plain) == len(ids)
    assert all(ids.issuperset([one]) == plain.issuperset([one]) for one in ("a", "ab", "cc"))
    assert ids.nbytes < 60 * min(expected, 1_000_000) + 2_000


@pytest.mark.parametrize(
    ("pods", "most"),
    [
        (1_000, 170),
        (9_900, 170),
        (99_000, 170),
        (101_000, 60),
        pytest.param(400_000, 60, marks=pytest.mark.once),  # takes long
    ],
)
def test_an_id_takes_few_bytes(pods, most):
    """A hundred thousand ids cost 170 bytes each at most, more of them 60, and it says so."""
    pages = [[str(uuid.uuid4()) for _ in range(100)] for _ in range(pods // 100)]
    tracemalloc.start()
    try:
        ids = IdSet()
        for page in pages:
            assert ids.add(page)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(ids) == pods
    assert not any(map(ids.add, pages))
    assert taken < most * pods + 1_000
    assert taken == pytest.approx(ids.nbytes, rel=0.5)
