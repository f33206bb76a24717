"""Ids are cut into batches: each once, within limits, and as a checkpoint has cut them before."""

from collections import Counter

import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ief_async import (
    CheckpointError,
    ConfigurationError,
    Deployment,
    Instance,
    Node,
    Pod,
    ScanCheckpoint,
)
from ief_async._checkpoint import Entry, Mark, Part, Run, fingerprint
from ief_async._endpoints import LISTINGS, Listed
from ief_async._paging.batches import (
    SELECTORS,
    URL_BYTES,
    Batch,
    Batcher,
    Query,
    check_id,
    url_bytes,
)

SAMPLE = ScanCheckpoint(
    scan=fingerprint("sample"),
    parts=(
        Part(
            fingerprint("a"),
            (Entry(Run.of("ab")), Entry(Run.of("c"), Mark(1900, 2140, ("p1", "p2")))),
        ),
    ),
)


@given(
    ids=st.lists(st.from_regex(r"[0-9a-z-]{1,40}", fullmatch=True), max_size=300),
    size=st.integers(1, 150),
)
@settings(max_examples=examples(100))
def test_batches_hold_each_id_once_within_their_limits(ids, size):
    """Batches keep the order of the ids, drop repeats, and keep size and URL below their limits."""
    fixed = url_bytes("/v3/p/edgemgr/pods", "deployment_ids", 100)
    batcher = Batcher(selector="deployment_ids", size=size, fixed_bytes=fixed)

    batches = [batch.query for one in ids for batch in batcher.add(one)]
    batches += [batch.query for batch in batcher.flush()]

    assert list(dict.fromkeys(ids)) == [one for query in batches for one in query.ids]
    for query in batches:
        assert len(query.ids) <= size
        assert len(f"/v3/p/edgemgr/pods?{query.text}&limit=100&offset=9999999999") <= URL_BYTES


def test_hundred_uuids_fit_into_one_url():
    """The default batch of 100 ids of 36 characters stays whole under 4,000 bytes."""
    fixed = url_bytes(f"/v3/{'a' * 32}/edgemgr/pods", "deployment_ids", 1000)
    batcher = Batcher(selector="deployment_ids", size=100, fixed_bytes=fixed)

    assert not any(batcher.add(f"{number:036}") for number in range(100))
    assert 100 == len(batcher.flush()[0].query.ids)


def test_id_comes_once():
    """An id that comes again, as itself or as that of a model, is asked for once."""
    made = Batcher(selector="node_ids", size=100, fixed_bytes=0)
    for one in ("a", Node(id="b"), "b", Node(id="a"), "c"):
        assert [] == made.add(one)

    assert [("a", "b", "c")] == [batch.query.ids for batch in made.flush()]
    assert fingerprint("a") == made.first


def test_query_stands_in_the_url():
    """Ids are joined by commas, which are quoted; filters stand as they are."""
    assert "deployment_ids=a%2Cb" == Query("deployment_ids", ("a", "b")).text
    assert "node_id=a" == Query("node_id", ("a",)).text
    assert "name=x&app=y" == Query("filter", ("name=x&app=y",)).text


def test_url_is_measured_at_its_largest_offset():
    """An offset of ten digits fits, whatever it begins with."""
    longest = "/v3/p/edgemgr/pods?node_id=&limit=100&offset=9999999999"

    assert len(longest) == url_bytes("/v3/p/edgemgr/pods", "node_id", 100)


def test_url_may_be_as_long_as_its_limit():
    """Ids fill the URL up to its last byte, in every batch."""
    made = Batcher(selector="deployment_ids", size=1_000, fixed_bytes=URL_BYTES - 40)
    ids = [f"{number:07}" for number in range(9)]
    batches = [batch.query.ids for one in ids for batch in made.add(one)]

    assert [tuple(ids[:4]), tuple(ids[4:8])] == batches


def test_node_that_says_it_is_empty_is_left_out():
    """A node without deployments has no pods, if the caller wants to rely on it."""
    made = Batcher(selector="node_ids", size=100, fixed_bytes=0, skip_empty_nodes=True)
    for one in (Node(id="a", deployment_num=0), Node(id="b", deployment_num=1), "c"):
        made.add(one)

    assert [("b", "c")] == [batch.query.ids for batch in made.flush()]


@pytest.mark.parametrize(
    ("selector", "model", "words"),
    [
        ("deployment_ids", Node(id="a"), "got a Node: pass it as node_ids="),
        ("node_id", Deployment(id="a"), "got a Deployment: pass it as deployment_ids="),
        ("deployment_ids", Pod(id="a"), "got a Pod: pass its deployment_id or node_id"),
        ("group_id", Instance(id="a"), "got an Instance: pass its id as instance_id="),
    ],
)
def test_model_of_another_kind_is_refused(selector, model, words):
    """What has an id of another kind is told how to be passed."""
    with pytest.raises(ConfigurationError, match=f"{selector} must be other ids, {words}"):
        check_id(model, selector)


class Own:
    """An object of the user's own that has an id."""

    id = "a"


@pytest.mark.parametrize("model", [one.model for one in LISTINGS.values()])
def test_row_of_every_list_selects_pods_or_is_refused(model):
    """A row of a list that selects no pods is an error, as no answer would tell of the mistake."""
    if model.__name__ in SELECTORS:
        assert "a" == check_id(model(id="a"), SELECTORS[model.__name__])
    else:
        for selector in SELECTORS.values():
            with pytest.raises(ConfigurationError, match=f"got .*{model.__name__}: pass"):
                check_id(model(id="a"), selector)


def test_row_of_a_new_list_is_refused():
    """A model of the API that the selectors do not know is refused without a line of its own."""
    device = type("Device", (Own,), {"__module__": Pod.__module__})

    with pytest.raises(
        ConfigurationError, match="node_id must be other ids, got the model Device: pass ids of"
    ):
        check_id(device(), "node_id")


@pytest.mark.parametrize("identity", [Own(), Listed(id="a"), type("Mine", (Node,), {})(id="a")])
def test_object_of_ones_own_is_taken_by_its_id(identity):
    """Whatever has an id and is no row of another list is an id."""
    assert "a" == check_id(identity, "node_id")


@pytest.mark.parametrize("identity", ["", " a", "a,b", "a b", "a/b", "..", "ä", "x" * 65, 7, None])
def test_id_that_would_not_be_one_id_is_refused(identity):
    """An id that is empty, no text, or would change the URL is a `ConfigurationError`."""
    batcher = Batcher(selector="deployment_ids", size=100, fixed_bytes=0)

    with pytest.raises(ConfigurationError, match="deployment_ids must be ids of"):
        batcher.add(identity)


def batcher(resume=None):
    """Return a batcher of two ids a batch."""
    return Batcher(selector="deployment_ids", size=2, fixed_bytes=0, resume=resume)


def cut(ids, resume=None):
    """Cut these ids into batches and runs."""
    made = batcher(resume)
    return [batch for one in ids for batch in made.add(one)] + made.flush()


def test_ids_are_cut_as_the_checkpoint_has_them():
    """What is done comes as a run, what was begun with its mark, what is new in new batches."""
    done, begun, new, last = cut("abcdef", SAMPLE)

    assert Run.of("ab") == done
    assert (("c",), SAMPLE.parts[0].entries[1].mark) == (begun.query.ids, begun.mark)
    assert [(("d", "e"), None), (("f",), None)] == [(b.query.ids, b.mark) for b in (new, last)]


@pytest.mark.parametrize(
    ("ids", "problem"),
    [
        ("xbcd", "its first id is another than x"),
        ("axcd", "it holds other ids than the 2 up to x"),
        ("abxd", "it holds other ids than the 1 up to x"),
        ("ba", "its first id is another than b"),
        ("a", "there are fewer ids than the checkpoint holds"),
        ("ab", "there are fewer ids than the checkpoint holds"),
        ("", "there are fewer ids than the checkpoint holds"),
    ],
)
def test_other_ids_are_another_scan(ids, problem):
    """Ids that are others, in another order, or too few are refused before they are asked for."""
    with pytest.raises(CheckpointError, match=f"of another scan: {problem}"):
        cut(ids, SAMPLE)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_merged_checkpoints_take_the_ids_in_any_order_of_the_workers(order):
    """Each worker's line is met by its first id; what none of them began makes new batches."""
    lines = ["abcd", "efgh", "ij"]
    workers = [
        ScanCheckpoint(
            scan=1, parts=(Part(fingerprint(line[0]), (Entry(Run.of(line[:2]), Mark(5)),)),)
        )
        for line in lines[:2]
    ]
    merged = ScanCheckpoint.merge(*workers, ScanCheckpoint(scan=1, parts=()))

    batches = cut("".join(lines[at] for at in order), merged)

    assert all(isinstance(batch, Batch) for batch in batches)
    marked = {batch.query.ids for batch in batches if batch.mark is not None}
    assert {("a", "b"), ("e", "f")} == marked
    assert Counter("abcdefghij") == Counter(one for batch in batches for one in batch.query.ids)
