"""Files and tables hold what the objects hold, and are whole or not there."""

import io
import json
import sys
import threading
from datetime import datetime
from pathlib import Path

import attrs
import pytest
from conftest import examples, session_with, until
from exports import (
    as_row,
    pods_of,
    said,
    tasks_of_scans,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import objects, rows_of

from ief_async import (
    ConfigurationError,
    PayloadError,
    Pod,
    Target,
    Token,
    scan_fleet,
)
from ief_async._endpoints import LISTINGS, PODS
from ief_async._models import parse_timestamp
from ief_async._structure.flatten import LineReader
from ief_async._structure.structure import structure_of
from ief_async.sinks import (
    arrow_schema,
    narrowed,
    read_table,
    record_batches,
    write_ndjson,
    write_parquet,
)
from ief_async.sinks._arrow import Columns
from ief_async.testing import Account, FakeIef, Fault

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

SAMPLES = Path(__file__).parents[1] / "samples"
MODELS = {one.key: one.model for one in LISTINGS.values() if one is not PODS}


# ---- rows --------------------------------------------------------------------------------------


def integers_in(value):
    """Yield all integers in rows."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from integers_in(inner)


@settings(max_examples=examples(300))
@given(st.lists(objects(Pod), min_size=1, max_size=4))
def test_a_batch_says_what_the_objects_say(pods):
    """Whatever stands in a page: what the model takes is in the batch, and nothing else is."""
    rows = rows_of(*[{"id": "a", **pod} for pod in pods])
    structure = structure_of(Pod)
    plain = LineReader(structure, for_arrow=True)
    try:
        items = structure.items(rows, range(len(rows)), key="pods")
    except PayloadError:
        with pytest.raises(PayloadError):
            plain.items(rows, range(len(rows)), key="pods")
        return

    if any(not -(2**63) <= number < 2**63 for number in integers_in(said(tuple(items)))):
        with pytest.raises(PayloadError, match="fits into no column"):
            for at in range(len(rows)):
                plain.items(rows, [at], key="pods")
        return

    lines = plain.items(rows, range(len(rows)), key="pods")
    batch = Columns(Pod, of_targets=False).batch(lines)

    assert [plain.line(item) for item in items] == lines
    assert [as_row(item) for item in items] == batch.to_pylist()


@pytest.mark.parametrize("key", MODELS)
def test_every_list_has_its_columns(key):
    """What the full samples of the other lists say is in the rows of a batch."""
    rows = rows_of(*json.loads((SAMPLES / "siblings.full.json").read_bytes())[key])
    structure = structure_of(MODELS[key])
    plain = LineReader(structure, for_arrow=True)

    items = structure.items(rows, range(len(rows)), key=key)
    lines = plain.items(rows, range(len(rows)), key=key)
    batch = Columns(MODELS[key], of_targets=False).batch(lines)

    expected = [as_row(item) for item in items]
    for row in expected if key == "ief_instances" else ():
        for name in ("tasks", "tags"):  # of no type that is documented: their JSON
            row[name] = None if row[name] is None else batch.to_pylist()[0][name]
            assert row[name] is None or json.loads(row[name]) is not None
    assert expected == batch.to_pylist()


TIMES = [
    "2023-01-01T00:00:00.000Z",
    "2019-10-10T02:24:02.325Z",
    "2019-10-10T02:24:02Z",
    "2019-10-10T02:24:02.123456Z",
    "2019-10-10T02:24:02.123456789Z",
    "2019-10-10 02:24:02",
    "2022-06-07 08:21:05.794205 +0000 UTC",
    "2022-06-07T08:21:05+08:00",
    "1650000000",
    "0001-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "2023-02-30T00:00:00Z",
    "2023-01-01T24:00:00Z",
    "2023-01-01T00:00:60Z",
    "9999-12-31T23:59:59.999999Z",
    "",
    "yesterday",
    None,
]


@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from(TIMES), min_size=1, max_size=5))
def test_times_are_read_as_the_models_read_them(texts):
    """A column of times holds what `Pod.created` says, and the text of what that can't read."""
    pods = [Pod(id="a", created_at=text) for text in texts]
    plain = LineReader(structure_of(Pod), for_arrow=True)

    batch = Columns(Pod, of_targets=False).batch([plain.line(pod) for pod in pods])

    assert [pod.created for pod in pods] == batch["created_at"].to_pylist()
    unread = [text if parse_timestamp(text) is None else None for text in texts]
    assert unread == batch["created_at_text"].to_pylist()


def test_rows_without_the_extra(monkeypatch):
    """Without pyarrow the error says how to get it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'ief-async\[arrow\]'"):
        arrow_schema()


@attrs.frozen
class Odd:
    """A model of a user's own, with what JSON has no word for."""

    id: str
    state: str = "NONE"
    restarts: int = 7
    created_at: datetime | None = None
    labels: dict[str, str] = attrs.field(factory=dict)
    either: int | str | None = None


async def test_a_model_of_ones_own():
    """Own defaults, times, mappings and unions come through."""
    rows = [
        {"id": "a", "created_at": "2023-01-01T00:00:00Z", "labels": {"k": "v"}, "either": 3},
        {"id": "b", "either": "x", "state": "RUNNING", "restarts": "2"},
    ]
    async with FakeIef(rows) as fake, session_with(fake) as ief:
        table = await read_table(ief.iter_pods(fake.deployment_ids, model=Odd))
        pods = await ief.iter_pods(fake.deployment_ids, model=Odd).collect()

    assert [
        {
            "id": pod.id,
            "state": pod.state,
            "restarts": pod.restarts,
            "created_at": pod.created_at,
            "labels": [{"key": key, "value": value} for key, value in pod.labels.items()],
            "either": json.dumps(pod.either),
        }
        for pod in pods
    ] == table.to_pylist()


@attrs.frozen
class Tree:
    """A model that no table can hold."""

    id: str
    inner: "Tree | None" = None


def test_a_model_without_end_is_refused():
    """A class that contains itself is an error that names it."""
    with pytest.raises(ConfigurationError, match="Tree contains itself"):
        arrow_schema(Tree)


@attrs.frozen
class Checked:
    """A model that looks at its values."""

    id: str
    restarts: int = attrs.field(default=0, validator=attrs.validators.le(5))


async def test_validators_of_a_model_are_heeded():
    """What the model's own validator refuses is refused on the way to a table, too."""
    async with FakeIef([{"id": "a", "restarts": 9}]) as fake, session_with(fake) as ief:
        with pytest.raises(PayloadError):
            await read_table(ief.iter_pods(fake.deployment_ids, model=Checked))


async def test_a_number_that_no_column_holds():
    """An integer of more than 64 bits is an error that names the field; the model takes it."""
    pods = [{"id": "a", "containers": [{"restarts": 2**70}]}]
    async with FakeIef(pods) as fake, session_with(fake) as ief:
        (pod,) = await ief.iter_pods(fake.deployment_ids).collect()
        with pytest.raises(PayloadError, match=r"pods\[0\]\.containers\[0\]\.restarts.*column"):
            await read_table(ief.iter_pods(fake.deployment_ids))

    assert 2**70 == pod.containers[0].restarts


def test_fields_can_be_chosen():
    """A narrowed model has the fields in the order given, and is the same class each time."""
    narrow = narrowed(Pod, ["state", "id"])

    assert ["state", "id"] == [field.name for field in attrs.fields(narrow)]
    assert narrow is narrowed(Pod, ("state", "id"))
    for wrong, problem in (
        (["nmae"], "each once, and Pod has no nmae; its fields are id, name"),
        ([], r"each once, got \[\]; its fields are id"),
        (["id", "id"], r"each once, got \['id', 'id'\]; its"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            narrowed(Pod, wrong)


# ---- tables ------------------------------------------------------------------------------------


async def test_table_and_batches():
    """A table has the rows in the stream's order; batches have whole pages, `rows` at least."""
    async with FakeIef(950, deployments=4) as fake, session_with(fake) as ief:
        table = await read_table(ief.iter_pods(fake.deployment_ids))
        batches = [
            batch async for batch in record_batches(ief.iter_pods(fake.deployment_ids), rows=250)
        ]
        pods = await pods_of(fake)

    assert [as_row(pod) for pod in pods] == table.to_pylist()
    assert table.equals(pa.Table.from_batches(batches))
    assert arrow_schema() == table.schema
    assert all(batch.num_rows >= 250 for batch in batches[:-1])
    assert 1 < len(batches)


async def test_an_empty_fleet_has_its_columns():
    """Without a pod there is no batch, and a table of all columns without rows."""
    async with FakeIef(0) as fake, session_with(fake) as ief:
        assert [] == [batch async for batch in record_batches(ief.iter_pods(["d"]))]
        table = await read_table(ief.iter_pods(["d"]))

    assert (0, arrow_schema()) == (table.num_rows, table.schema)


async def test_batches_are_made_in_another_thread(monkeypatch):
    """The event loop has its thread for itself while a batch is made."""
    threads = set()
    made = Columns.batch

    def batch(columns, rows):
        threads.add(threading.get_ident())
        return made(columns, rows)

    monkeypatch.setattr(Columns, "batch", batch)
    async with FakeIef(30) as fake, session_with(fake) as ief:
        await read_table(ief.iter_pods(fake.deployment_ids))

    assert threads
    assert threading.get_ident() not in threads


async def test_a_fleet_has_a_column_of_targets():
    """The rows of scan_fleet say in front which target they are of."""
    async with FakeIef(20) as one, FakeIef(30, seed=2, account=Account(project_id="p" * 32)) as two:
        targets = [
            Target(
                project_id=fake.project_id, credentials=Token(fake.token), endpoint=fake.endpoint
            )
            for fake in (one, two)
        ]
        stream = scan_fleet(targets, model=narrowed(Pod, ["id"]))
        table = await read_table(stream)
        lines = io.BytesIO()
        await write_ndjson(scan_fleet(targets, model=narrowed(Pod, ["id"])), lines)
        expected = {
            (target.name, pod["id"])
            for target, fake in zip(targets, (one, two), strict=True)
            for pod in fake.pods
        }

    assert ["target", "id"] == table.schema.names
    assert expected == {(row["target"], row["id"]) for row in table.to_pylist()}
    documents = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert expected == {(document["target"], document["id"]) for document in documents}
    assert 50 == len(documents) == table.num_rows


async def test_leaving_the_batches_ends_the_scan():
    """After a bare break no task of the scan runs any more."""
    async with FakeIef(4_000) as fake, session_with(fake) as ief:
        fake.script(*[None] * 4, *[Fault.hang()] * 40)
        async for _ in record_batches(ief.iter_pods(fake.deployment_ids), rows=1):
            assert tasks_of_scans()
            break
        await until(lambda: not tasks_of_scans())


async def test_what_is_no_stream_is_refused(tmp_path):
    """Lists, streams that were iterated, and odd arguments are errors that say what is taken."""
    async with FakeIef(3) as fake, session_with(fake) as ief:
        with pytest.raises(ConfigurationError, match=r"stream must be a Stream.*got list"):
            await read_table([1])
        stream = ief.iter_pods(fake.deployment_ids)
        await stream.collect()
        with pytest.raises(ConfigurationError, match="iterated before"):
            await write_ndjson(stream, tmp_path / "a")
        for options, problem in (
            ({"rows": 0}, "rows must be"),
            ({"checkpoint_pages": 0}, "checkpoint_pages must be"),
            ({"keep": 3}, "keep must be a function.*got int"),
        ):
            with pytest.raises(ConfigurationError, match=problem):
                await write_parquet(ief.iter_pods(["d"]), tmp_path / "a", **options)
        with pytest.raises(
            ConfigurationError, match=r"to must be a path or a binary file, got int"
        ):
            await write_parquet(ief.iter_pods(["d"]), 3)
        with pytest.raises(ConfigurationError, match="to must be a path where checkpoint is given"):
            await write_parquet(ief.iter_pods(["d"]), io.BytesIO(), checkpoint=tmp_path / "c")

    assert [] == list(tmp_path.iterdir())
