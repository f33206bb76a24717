"""Rows that can't be read: each costs itself alone, at every door, and is counted."""

import asyncio
import json
import logging
import random
from contextlib import asynccontextmanager

import attrs
import pytest
from conftest import session_with

from ief_async import (
    ConfigurationError,
    PartialScanError,
    PayloadError,
    Pod,
    Target,
    Token,
    cli,
    scan_fleet,
)
from ief_async._endpoints import LISTINGS, PODS
from ief_async.testing import Account, FakeIef, Fault


@attrs.frozen(kw_only=True)
class Flat:
    """Plain fields: a page of them is made at once, unless a row is odd."""

    id: str
    name: str | None = None
    created_at: str | None = None


def pods_with(bad, number=60, *, deployments=1):
    """Return rows of which these can't be read: an amount of cores is no quantity."""
    pods = []
    for at in range(number):
        pods.append({"id": f"p{at}", "deployment_id": f"d{at % deployments}", "name": f"n{at}"})
        if at in bad:
            limits = {"limits": {"cpu": "250m"}}
            pods[-1] |= {"containers": [{"name": "c", "resources": limits}], "name": ["marker"]}
    return pods


@asynccontextmanager
async def fleet(pods, **options):
    """Run a fake fleet and a session with it."""
    async with FakeIef(pods, **options) as fake, session_with(fake) as ief:
        yield fake, ief


def good(number, bad):
    """Return the ids of all rows that can be read."""
    return [f"p{at}" for at in range(number) if at not in bad]


def replaced(row, error):
    """Return what stands in the place of a pod that can't be read."""
    assert isinstance(error, PayloadError)
    return Pod(id=row["id"], name="odd")


def body_of(*rows, count=None):
    """Return a page as the server sends it."""
    said = {"count": len(rows) if count is None else count, "pods": list(rows)}
    return json.dumps(said).encode()


# ---- what it leads to ----------------------------------------------------------------------------


async def test_an_error_names_field_item_and_request():
    """By default the batch fails, and the error says which item of which answer it was."""
    async with fleet(pods_with({17})) as (_, ief):
        with pytest.raises(PayloadError) as caught:
            await ief.iter_pods(["d0"], page_size=10).collect()

    error = caught.value
    assert "pods[9].name" == error.path
    assert "p17" == error.item_id
    assert error.request_id
    assert "item p17" in str(error)
    assert error.request_id in str(error)
    assert "marker" not in str(error)


@pytest.mark.parametrize("page_size", [1, 7, 10, 60, 100])
@pytest.mark.parametrize("bad", [{0}, {59}, {17}, {0, 1, 2}, {9, 10, 11}, {*range(60)}, set()])
async def test_what_is_skipped_costs_itself_alone(bad, page_size):
    """Each other row comes, in its order; the skipped ones are counted, and nothing is in doubt."""
    async with fleet(pods_with(bad)) as (_, ief):
        stream = ief.iter_pods(["d0"], page_size=page_size, on_bad_item="skip")
        items = await stream.collect()
        paged = ief.iter_pods(["d0"], page_size=page_size, on_bad_item="skip")
        pages = [page async for page in paged.pages()]

    assert good(60, bad) == [pod.id for pod in items]
    assert good(60, bad) == [pod.id for page in pages for pod in page.items]
    for report in (stream.report, paged.report):
        assert (len(bad), 60 - len(bad), True) == (report.bad_items, report.items, report.complete)
        assert () == report.doubtful or page_size == 1
        assert () == report.failures
    assert stream.progress.expected_items == len(items)
    assert stream.progress.fraction == 1
    assert sum(page.bad_items for page in pages) <= len(bad)
    assert all(page.items for page in pages)


async def test_a_function_gives_what_stands_in_its_place():
    """It gets the row as JSON has it, and its error; its item stands where the row stood."""
    seen = []

    def instead(row, error):
        seen.append((row, error.path, error.item_id, error.batch, error.offset))
        return None if row["id"] == "p5" else replaced(row, error)

    async with fleet(pods := pods_with({5, 17})) as (_, ief):
        stream = ief.iter_pods(["d0"], page_size=10, on_bad_item=instead)
        items = await stream.collect()

    assert [f"p{at}" for at in range(60) if at != 5] == [pod.id for pod in items]
    assert ["p17"] == [pod.id for pod in items if pod.name == "odd"]
    assert [(pods[5], "p5", 0, 0), (pods[17], "p17", 0, 8)] == [
        (row, item, batch, offset) for row, _, item, batch, offset in seen
    ]
    assert (2, 59) == (stream.report.bad_items, stream.report.items)


@pytest.mark.parametrize("kind", [KeyError, ValueError, PayloadError])
@pytest.mark.parametrize("on_error", ["raise", "defer", "collect"])
@pytest.mark.parametrize("of_fleet", [False, True])
async def test_what_the_function_raises_ends_the_scan_as_itself(kind, on_error, of_fleet):
    """Under every policy, in a fleet too; resuming goes on with the row that it was asked about."""
    asked = []
    problem = kind("mine")

    def refuse(row, _):
        asked.append(row["id"])
        raise problem

    async with fleet(pods_with({17})) as (fake, ief):
        options = {"on_error": on_error, "page_size": 10, "on_bad_item": refuse}
        if of_fleet:
            target = Target(
                project_id=fake.project_id, endpoint=fake.endpoint, credentials=Token(fake.token)
            )
            stream = scan_fleet([target], **options)
        else:
            stream = ief.iter_pods(["d0"], **options)
        first = []
        with pytest.raises(kind, match="mine") as caught:
            async for item in stream:
                first.append(item[1].id if of_fleet else item.id)
        assert problem is caught.value
        assert good(17, {}) == first
        assert [] == [task for task in asyncio.all_tasks() if "Scan." in repr(task.get_coro())]
        if not of_fleet:
            options["on_bad_item"] = "skip"
            rest = ief.iter_pods(["d0"], resume_from=stream.checkpoint(), **options)
            assert good(60, {17})[17:] == [pod.id for pod in await rest.collect()]
            assert 1 == rest.report.bad_items
    assert ["p17"] == asked


async def test_the_error_itself_may_be_raised_again():
    """A function that gives the error back ends the scan with it, told where it was, once."""

    def refuse(_, error):
        raise error

    async with fleet(pods_with({17})) as (_, ief):
        with pytest.raises(PayloadError) as caught:
            await ief.iter_pods(["d0"], on_error="collect", on_bad_item=refuse).collect()

    assert "p17" == caught.value.item_id
    assert caught.value.checkpoint is not None
    assert 1 == len(caught.value.__notes__)


async def wait(row, error):
    """Do nothing: a function of a kind that is refused."""


@pytest.mark.parametrize("value", ["ignore", None, 5, wait, True])
async def test_other_policies_are_refused_before_anything_is_sent(value):
    """Only the two words and plain functions are taken, at every door."""
    async with fleet(3) as (fake, ief):
        for call in (
            lambda: ief.iter_pods(["d0"], on_bad_item=value),
            lambda: ief.iter_deployments(on_bad_item=value),
            lambda: scan_fleet(
                [Target(project_id="p", endpoint=fake.endpoint, credentials=Token("t"))],
                on_bad_item=value,
            ),
        ):
            with pytest.raises(ConfigurationError, match="on_bad_item must be"):
                call()
        with pytest.raises(ConfigurationError, match="on_bad_item must be"):
            await ief.list_pods(node_id="n", on_bad_item=value)
        assert 0 == fake.statistics().requests


# ---- options together ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
async def test_no_row_is_lost_or_repeated_around_a_bad_one(seed):
    """Whatever the options are and wherever it is left and resumed: max_items is exact."""
    chance = random.Random(seed)
    number, deployments = chance.choice([30, 61, 120]), chance.choice([1, 3])
    bad = {at for at in range(number) if chance.random() < chance.choice([0.02, 0.2, 0.7])}
    pods = pods_with(bad, number, deployments=deployments)
    model = chance.choice([Pod, Flat])
    expected = [pod["id"] for pod in pods if pod["id"] not in {f"p{at}" for at in bad}]
    options = {
        "page_size": chance.choice([2, 7, 10, 100]),
        "batch_size": chance.choice([1, 100]),
        "ordered": chance.choice([True, False]),
        "model": model,
        "concurrency": chance.choice([1, 8]),
    }
    given = []

    def noted(row, _):
        given.append(row["id"])

    came, skipped, resume = [], 0, None
    async with fleet(pods) as (_, ief):
        ids = [f"d{at}" for at in range(deployments)]
        for _ in range(number + 2):
            most = chance.choice([None, 1, 5, 20, 20])
            stream = ief.iter_pods(
                ids,
                max_items=most,
                resume_from=resume,
                on_bad_item=chance.choice(["skip", noted]),
                **options,
            )
            if chance.random() < 0.5:
                some = [item.id async for page in stream.pages() for item in page.items]
            else:
                some = [item.id async for item in stream]
            came += some
            report = stream.report
            skipped += report.bad_items
            assert len(some) == report.items
            assert most is None or len(some) <= most
            assert report.complete or len(some) == most
            if report.complete:
                break
            resume = stream.checkpoint().to_json()

    assert sorted(expected) == sorted(came)
    assert len(bad) == skipped
    assert len(given) == len(set(given))


@pytest.mark.parametrize("most", [None, 12])
@pytest.mark.parametrize("paged", [True, False])
async def test_what_fails_counts_no_item_that_did_not_come(paged, most):
    """A page that is given up is no part of the figures, and its rows do not use up max_items."""
    async with fleet(pods_with({18}, deployments=2)) as (_, ief):
        stream = ief.iter_pods(
            ["d0", "d1"], batch_size=1, concurrency=1, on_error="collect", max_items=most
        )
        if paged:
            came = [item.id async for page in stream.pages() for item in page.items]
        else:
            came = [item.id async for item in stream]

    first = [] if paged else [f"p{at}" for at in range(0, 18, 2)]
    assert [*first, *(f"p{at}" for at in range(1, 60, 2))][:most] == came
    assert len(came) == stream.report.items
    if most is None:
        assert [len(first), 30] == [batch.items for batch in stream.report.batches]


async def test_an_item_in_hand_comes_again_and_a_skipped_row_does_not():
    """A consumer that leaves at the item behind a skipped row gets that item again, and no more."""
    asked = []
    async with fleet(pods_with({4, 5})) as (_, ief):
        stream = ief.iter_pods(["d0"], on_bad_item=lambda row, _: asked.append(row["id"]))
        async for pod in stream:
            if pod.id == "p6":
                break
        rest = ief.iter_pods(
            ["d0"], resume_from=stream.checkpoint(), on_bad_item=lambda row, _: asked.append(row)
        )
        again = [pod.id for pod in await rest.collect()]
    assert good(60, {*range(6)}) == again
    assert ["p4", "p5"] == asked


async def test_an_error_counts_what_came_before_it_as_finished():
    """What resumes from a bad row begins with it: nothing that was delivered comes again."""
    async with fleet(pods_with({17})) as (_, ief):
        stream = ief.iter_pods(["d0"])
        with pytest.raises(PayloadError) as caught:
            await stream.collect()
        rest = ief.iter_pods(["d0"], resume_from=caught.value.checkpoint, on_bad_item="skip")

        assert good(60, {*range(18)}) == [pod.id for pod in await rest.collect()]


async def test_a_skipped_target_holds_no_other_up():
    """A target whose rows are all bad gives way to the others."""
    async with (
        FakeIef(pods_with({*range(60)})) as odd,
        FakeIef(pods_with({3}), account=Account(project_id="0" * 32)) as other,
    ):
        targets = [
            Target(project_id=one.project_id, endpoint=one.endpoint, credentials=Token(one.token))
            for one in (odd, other)
        ]
        stream = scan_fleet(targets, page_size=7, on_bad_item="skip")
        items = [(target, pod.id) async for target, pod in stream]
        paged = scan_fleet(targets, page_size=7, on_bad_item="skip")
        pages = [page async for page in paged.pages()]

    assert [(targets[1], one) for one in good(60, {3})] == items
    assert items == [(target, pod.id) for page in pages for target, pod in page.items]
    assert (61, 61) == (stream.report.bad_items, paged.report.bad_items)
    assert 60 == stream.report.targets[targets[0]].bad_items


# ---- other kinds of odd rows ---------------------------------------------------------------------

ODD_ROWS = [
    None,
    5,
    "row",
    [],
    {},
    {"name": "x"},
    {"id": 7, "name": "y"},
    {"id": ""},
    {"id": None},
    {"id": ["a"]},
    {"id": "odd", "containers": 5},
    {"id": "far", "created_at": {"\ud800": "\ud800"}, "containers": "x"},
]


@pytest.mark.parametrize("model", [Pod, Flat])
@pytest.mark.parametrize("row", ODD_ROWS, ids=repr)
async def test_every_odd_row_is_a_bad_item(row, model):
    """What is no object, has no id or one of another type is left out like any other."""
    wrong = row if model is Pod or not isinstance(row, dict) else row | {"name": {}}
    body = body_of({"id": "a"}, wrong, {"id": "b"}, wrong if wrong is None else None, {"id": "c"})
    given = []

    def instead(odd, error):
        given.append((odd, error.path.split(".")[0]))
        return model(id="instead")

    async with fleet(0) as (fake, ief):
        fake.script(*[Fault.body(body)] * 4)
        page = await ief.list_pods(node_id="n", model=model, on_bad_item="skip")
        stream = ief.iter_pods(["d0"], model=model, on_bad_item="skip")
        items = await stream.collect()
        swapped = await ief.list_pods(node_id="n", model=model, on_bad_item=instead)
        with pytest.raises(PayloadError):
            await ief.list_pods(node_id="n", model=model)

    assert ["a", "b", "c"] == [item.id for item in page.items] == [item.id for item in items]
    assert ["a", "instead", "b", "instead", "c"] == [item.id for item in swapped.items]
    assert [(wrong, "pods[1]"), (None, "pods[3]")] == given
    assert (2, 2, 2) == (page.bad_items, swapped.bad_items, stream.report.bad_items)
    assert "exact" == stream.report.batches[0].drift


async def test_rows_that_hold_the_same_and_no_id_are_counted_each():
    """They are told apart by where they stand, over pages that overlap."""
    rows = [{"id": f"p{at}"} if at % 3 else None for at in range(40)]

    async with fleet(0) as (fake, ief):
        for offset in range(0, 40, 10):
            fake.script(Fault.body(body_of(*rows[offset : offset + 10], count=40)))
        stream = ief.iter_pods(["d0"], page_size=10, on_drift="ignore", on_bad_item="skip")
        assert [row["id"] for row in rows if row] == [pod.id for pod in await stream.collect()]
    assert 14 == stream.report.bad_items


async def test_an_id_twice_stands_as_its_first_copy():
    """Where the first copy can't be read the second does not come in its place."""
    body = body_of({"id": "a"}, {"id": "b", "name": []}, {"id": "b"}, count=3)
    async with fleet(0) as (fake, ief):
        fake.script(Fault.body(body))
        stream = ief.iter_pods(["d0"], on_bad_item="skip")

        assert ["a"] == [pod.id for pod in await stream.collect()]
    assert 1 == stream.report.bad_items


@pytest.mark.parametrize("body", [b"[]", b'{"count":1}', b'{"count":"x","pods":[{"id":"a"}]}'])
async def test_a_wrong_body_is_no_bad_item(body):
    """What is wrong with the answer as a whole stays an error of its batch."""
    async with fleet(0) as (fake, ief):
        fake.script(*[Fault.body(body)] * 3)
        with pytest.raises(PayloadError):
            await ief.iter_pods(["d0"], on_bad_item="skip").collect()
        with pytest.raises(PayloadError):
            await ief.list_pods(node_id="n", on_bad_item=replaced)


async def test_counting_looks_at_no_row():
    """A first row that can't be read changes no count."""
    async with fleet(0) as (fake, ief):
        fake.script(Fault.body(body_of(None, count=7)))

        assert 7 == (await ief.count_pods(["d0"])).total


# ---- other doors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listing", [one for one in LISTINGS.values() if one is not PODS], ids=lambda one: one.name
)
async def test_every_list_skips(listing):
    """The sibling lists take the same option."""
    rows = [{"id": "a"}, {"id": "b", "created_at": ["x"]}, None, {"id": "c"}]
    async with fleet(0) as (fake, ief):
        fake.script(Fault.body(json.dumps({"count": 4, listing.key: rows}).encode()))
        stream = getattr(ief, listing.operation)(on_bad_item="skip")

        assert ["a", "c"] == [item.id for item in await stream.collect()]
    assert 2 == stream.report.bad_items


def listed(key, *rows):
    """Return an answer of a sibling list."""
    return Fault.body(json.dumps({"count": len(rows), key: rows}).encode())


@pytest.mark.parametrize("by", ["deployments", "nodes"])
async def test_an_odd_deployment_hides_no_pods(by):
    """What a fleet is found by needs ids alone; one without an id is skipped if that is asked."""
    odd = {"id": "d0", "replicas": "many", "name": [], "cpu": "250m"}
    async with FakeIef(5) as fake:
        target = Target(
            project_id=fake.project_id, endpoint=fake.endpoint, credentials=Token(fake.token)
        )
        real = fake.deployment_ids[0] if by == "deployments" else fake.pods[0]["node_id"]
        fake.script(listed(by, odd | {"id": real}))
        whole = scan_fleet([target], by=by)
        assert [item async for item in whole]
        fake.script(listed(by, odd | {"id": real}, {"name": "x"}))
        part = scan_fleet([target], by=by, on_bad_item="skip", on_error="raise")
        assert [item async for item in part]
        fake.script(listed(by, {"name": "x"}))
        with pytest.raises(PayloadError):
            await scan_fleet([target], by=by, on_error="raise").collect()

    assert whole.report.complete
    assert (0, 1) == (part.report.bad_items, part.report.targets[target].ids.bad_items)


async def test_defer_and_collect_skip_before_they_fail():
    """A batch whose bad rows are skipped does not fail; another one may."""
    async with fleet(pods_with({3, 8}, deployments=2)) as (fake, ief):
        fake.script(Fault.status(400))
        stream = ief.iter_pods(
            ["d0", "d1"], batch_size=1, concurrency=1, on_error="defer", on_bad_item="skip"
        )
        seen = []
        with pytest.raises(PartialScanError) as caught:
            async for pod in stream:
                seen.append(pod.id)

    assert 1 == len(caught.value.failures)
    assert [f"p{at}" for at in range(1, 60, 2) if at != 3] == seen
    assert 1 == stream.report.bad_items


async def test_the_first_skipped_row_is_logged(caplog):
    """One warning a scan names the field; there is none where a function decides."""
    async with fleet(pods_with({3, 8})) as (_, ief):
        with caplog.at_level(logging.WARNING, "ief_async"):
            await ief.iter_pods(["d0"], on_bad_item=replaced).collect()
            assert [] == caplog.messages
            await ief.iter_pods(["d0"], on_bad_item="skip").collect()

    assert 1 == len(caplog.messages)
    assert "pods[3]" in caplog.messages[0]
    assert "marker" not in caplog.messages[0]


# ---- files, tables, engines, the command ---------------------------------------------------------


@pytest.mark.parametrize("form", ["ndjson", "parquet", "arrow"])
@pytest.mark.parametrize("keep", [None, lambda pod: pod.name != "n1"])
@pytest.mark.parametrize("policy", ["skip", replaced])
async def test_files_skip(tmp_path, form, keep, policy):
    """An export has every other row; what a function gives is a line like any other."""
    sinks = pytest.importorskip("ief_async.sinks")
    if form != "ndjson":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    bad = {4, 17, 59}
    path = tmp_path / f"pods.{form}"
    async with fleet(pods_with(bad)) as (_, ief):
        stream = ief.iter_pods(["d0"], page_size=20, on_bad_item=policy)
        await getattr(sinks, f"write_{form}")(
            stream, path, keep=keep, checkpoint=tmp_path / "state", checkpoint_pages=1
        )

    wanted = good(60, bad if policy == "skip" else set())
    wanted = [one for one in wanted if keep is None or one != "p1"]
    assert wanted == ids_in(path, form)
    assert 3 == stream.report.bad_items


def ids_in(path, form):
    """Return the ids of a file."""
    if form == "ndjson":
        return [json.loads(line)["id"] for line in path.read_text().splitlines()]
    if form == "parquet":
        from pyarrow import parquet

        return parquet.read_table(path).column("id").to_pylist()
    from pyarrow import feather

    return feather.read_table(path).column("id").to_pylist()


@attrs.frozen(kw_only=True)
class Wide:
    """A number that JSON may hold and no column can."""

    id: str
    restarts: int = 0


@pytest.mark.parametrize("keep", [None, lambda _: True])
async def test_what_fits_into_no_column_is_a_bad_item(tmp_path, keep):
    """Of a file of columns; a file of lines has it."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from ief_async import sinks

    pods = [{"id": f"p{at}", "deployment_id": "d", "restarts": 1} for at in range(5)]
    pods[2]["restarts"] = 2**70
    async with fleet(pods) as (fake, ief):
        for form, expected in (("parquet", good(5, {2})), ("ndjson", good(5, set()))):
            stream = ief.iter_pods(["d"], model=Wide, on_bad_item="skip")
            await getattr(sinks, f"write_{form}")(stream, tmp_path / form, keep=keep)
            assert expected == ids_in(tmp_path / form, form)
            assert 5 - len(expected) == stream.report.bad_items
        target = Target(
            project_id=fake.project_id, endpoint=fake.endpoint, credentials=Token(fake.token)
        )
        kept = None if keep is None else lambda pair: pair[0] is target and pair[1].id != "p1"
        whole = scan_fleet([target], model=Wide, on_bad_item="skip")
        await sinks.write_parquet(whole, tmp_path / "fleet", keep=kept)
        assert good(5, {2} if kept is None else {1, 2}) == ids_in(tmp_path / "fleet", "parquet")
        assert 1 == whole.report.bad_items


async def test_tables_skip():
    """Record batches have every other row, and a stream still says how many it left out."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from ief_async.sinks import read_table

    async with fleet(pods_with({4, 17})) as (_, ief):
        stream = ief.iter_pods(["d0"], page_size=20, on_bad_item="skip")
        table = await read_table(stream)

    assert good(60, {4, 17}) == table.column("id").to_pylist()
    assert 2 == stream.report.bad_items


def test_partitions_skip(monkeypatch, caplog):
    """A partition takes the words, pickles with them, and its worker logs how many it left out."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from ief_async.engines import plan_pods, read_partition

    with FakeIef(pods_with({4, 17})) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        (strict,) = plan_pods(["d0"], endpoint=fake.endpoint)
        with pytest.raises(PayloadError):
            list(read_partition(strict))
        fake.script(listed("deployments", {"id": "d0", "replicas": "x"}, {"name": "y"}))
        (partition,) = plan_pods(endpoint=fake.endpoint, on_bad_item="skip")
        batches = list(read_partition(partition))
        with pytest.raises(ConfigurationError, match="on_bad_item must be"):
            plan_pods(["d0"], endpoint=fake.endpoint, on_bad_item=replaced)

    assert good(60, {4, 17}) == [one for batch in batches for one in batch["id"].to_pylist()]
    assert any("2 rows" in message for message in caplog.messages)


def test_spark_takes_the_option():
    """It is an option of the data source, as text."""
    pytest.importorskip("pyspark", reason="pyspark is not installed")
    from ief_async.engines import spark

    assert "skip" == spark._arguments({"on_bad_item": "skip", "workers": "1"})["on_bad_item"]


@pytest.mark.parametrize("more", [(), ("-o", "table"), ("--name", "n*"), ("--file",)])
def test_the_command_skips(more, monkeypatch, capfd, tmp_path):
    """It prints all other rows, says how many it left out, and its code is that of a part."""
    log = logging.getLogger("ief_async")
    before = log.handlers, log.propagate, log.level
    path = tmp_path / "pods.ndjson"
    more = (*more, str(path)) if more == ("--file",) else more
    try:
        with FakeIef(pods_with({4, 17})) as fake:
            for name, value in fake.environment().items():
                monkeypatch.setenv(name, value)
            skipped = cli.main(["pods", "--on-bad-item", "skip", *more])
            out, said = capfd.readouterr()
            refused = cli.main(["pods", *more])
            capfd.readouterr()
            fake.script(listed("deployments", {"id": "d0", "replicas": "x"}, {"name": "y"}))
            cli.main(["deployments", "--on-bad-item", "skip"])
            lists = capfd.readouterr().err
    finally:
        log.handlers, log.propagate = before[:2]
        log.setLevel(before[2])

    shown = path.read_text() if path.exists() else out
    assert (3, 1) == (skipped, refused)
    assert "2 of the pods can't be read and were skipped" in said
    assert 58 == sum("n" in line and "NAME" not in line for line in shown.splitlines())
    assert "2 of the deployments can't be read" in lists
