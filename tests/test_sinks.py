"""Files and tables hold what the objects hold, and are whole or not there."""

import asyncio
import contextlib
import gzip
import io
import itertools
import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import attrs
import pytest
from conftest import session_with
from hypothesis import given, settings
from hypothesis import strategies as st
from test_structure import objects, rows_of

from ief_async import (
    CheckpointError,
    ConfigurationError,
    Deployment,
    Group,
    Instance,
    Node,
    PayloadError,
    Pod,
    RetryPolicy,
    ServerError,
    Target,
    Token,
    scan_fleet,
)
from ief_async._models import parse_timestamp
from ief_async._structure.flatten import LineReader
from ief_async._structure.structure import structure_of
from ief_async.sinks import (
    arrow_schema,
    load_checkpoint,
    narrowed,
    read_table,
    record_batches,
    save_checkpoint,
    write_arrow,
    write_ndjson,
    write_parquet,
)
from ief_async.sinks._arrow import Columns
from ief_async.testing import FakeIef, Fault

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
from pyarrow import parquet  # noqa: E402  after the line that says whether it is there

SAMPLES = Path(__file__).parent / "samples"
MODELS = {
    "deployments": Deployment,
    "nodes": Node,
    "edge_groups": Group,
    "instances": Instance,
}
ONCE = RetryPolicy(attempts=1)


def said(value):
    """Return what an object says, in the types of Arrow's rows."""
    if attrs.has(type(value)):
        return {field.name: said(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, tuple):
        return [said(item) for item in value]
    if isinstance(value, dict):
        return [{"key": key, "value": item} for key, item in value.items()]
    return whole(value) if isinstance(value, str) else value


def whole(text):
    """Return a text with U+FFFD for what UTF-8 has no bytes for."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_row(item):
    """Return the row of a table that an object makes."""
    row = said(item)
    for name in ("created_at", "updated_at"):
        if name in row:
            text = row[name]
            row[name] = moment = parse_timestamp(text)
            row[f"{name}_text"] = text if moment is None else None
    return row


def as_line(item):
    """Return the document of a line that an object makes."""
    return json.loads(json.dumps(attrs.asdict(item)))


async def pods_of(fake):
    """Return the pods of a fleet as objects."""
    async with session_with(fake) as ief:
        return await ief.iter_pods(fake.deployment_ids).collect()


# ---- rows --------------------------------------------------------------------------------------


def integers_in(value):
    """Yield all integers in rows."""
    if isinstance(value, int):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from integers_in(inner)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
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
    for row in expected if key == "instances" else ():
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


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
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
    async with FakeIef(20) as one, FakeIef(30, seed=2, project_id="p" * 32) as two:
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

    def fetching():
        return [task for task in asyncio.all_tasks() if "Scan." in task.get_coro().__qualname__]

    async with FakeIef(4_000) as fake, session_with(fake) as ief:
        fake.script(*[None] * 4, *[Fault.hang()] * 40)
        async for _ in record_batches(ief.iter_pods(fake.deployment_ids), rows=1):
            assert fetching()
            break
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert not fetching()


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
            ({"rows": 0}, "rows .*0"),
            ({"checkpoint_pages": 0}, "checkpoint_pages .*0"),
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


# ---- files -------------------------------------------------------------------------------------

WRITE = {
    "a.parquet": write_parquet,
    "a.arrow": write_arrow,
    "a.arrows": write_arrow,
    "a.ndjson": write_ndjson,
    "a.ndjson.gz": write_ndjson,
    "a.ndjson.zst": write_ndjson,
}


def rows_in(path):
    """Return the rows of a file, whatever its format, as a list of dicts."""
    name = path.name
    if name.endswith(".parquet"):
        return parquet.read_table(path).to_pylist()
    if name.endswith(".arrow"):
        return pa.ipc.open_file(path).read_all().to_pylist()
    if name.endswith(".arrows"):
        return pa.ipc.open_stream(path).read_all().to_pylist()
    text = path.read_bytes()
    if name.endswith(".gz"):
        text = gzip.decompress(text)
    if name.endswith(".zst"):
        text = pa.input_stream(path, compression="zstd").read()
    return [json.loads(line) for line in text.splitlines()]


def expected_in(path, pods):
    """Return the rows that a file has to have."""
    return [(as_line if "ndjson" in path.name else as_row)(pod) for pod in pods]


@pytest.mark.parametrize("saved", [False, True], ids=["in one go", "in parts"])
@pytest.mark.parametrize("name", WRITE)
async def test_a_file_holds_the_fleet(name, saved, tmp_path):
    """Each format, in one go and in parts, gives back every pod, in order; nothing else is left."""
    path = tmp_path / name
    options = {"checkpoint": tmp_path / "state", "checkpoint_pages": 2} if saved else {}
    async with FakeIef(430, deployments=4) as fake, session_with(fake) as ief:
        await WRITE[name](ief.iter_pods(fake.deployment_ids, page_size=50), path, **options)
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())
    umask = os.umask(0)
    os.umask(umask)
    assert 0o666 & ~umask == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", WRITE)
async def test_a_file_of_nothing(name, tmp_path):
    """An empty fleet makes a file without rows that its readers take."""
    async with FakeIef(0) as fake, session_with(fake) as ief:
        await WRITE[name](ief.iter_pods(["d"]), tmp_path / name)

    assert [] == rows_in(tmp_path / name)


@pytest.mark.parametrize("saved", [False, True], ids=["in one go", "in parts"])
async def test_row_groups(saved, tmp_path):
    """A row group has whole pages, `rows` rows at least, but for the last."""
    options = {"checkpoint": tmp_path / "state", "checkpoint_pages": 3} if saved else {}
    path = tmp_path / "a.parquet"
    async with FakeIef(1_000) as fake, session_with(fake) as ief:
        await write_parquet(ief.iter_pods(fake.deployment_ids), path, rows=250, **options)

    metadata = parquet.ParquetFile(path).metadata
    sizes = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    assert 1_000 == sum(sizes)
    assert all(250 <= size < 600 for size in sizes[:-1])


@pytest.mark.parametrize("write", [write_ndjson, write_arrow, write_parquet])
async def test_a_file_object_stays_open(write, tmp_path):
    """A file object gets the whole, and stays its owner's."""
    path = tmp_path / {write_arrow: "a.arrows", write_parquet: "a.parquet"}.get(write, "a.ndjson")
    async with FakeIef(120) as fake, session_with(fake) as ief:
        with path.open("wb") as file:
            await write(ief.iter_pods(fake.deployment_ids), file)
            assert not file.closed
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)


@pytest.mark.parametrize("name", ["a.parquet", "a.ndjson"])
async def test_only_what_is_kept_is_written(name, tmp_path):
    """`keep` gets the objects, and what it says no to is left out."""
    async with FakeIef(100) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids)
        await WRITE[name](stream, tmp_path / name, keep=lambda pod: pod.state == "RUNNING")
        pods = [pod for pod in await pods_of(fake) if pod.state == "RUNNING"]

    assert 0 < len(pods) < 100
    assert expected_in(tmp_path / name, pods) == rows_in(tmp_path / name)


async def test_nobody_sees_half_a_file(tmp_path):
    """While a file is written the one that was there stays; it is replaced by the whole."""
    path = tmp_path / "a.ndjson"
    path.write_text("the old one")
    seen = set()
    async with FakeIef(400) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids, page_size=50)
        fake.intercept(lambda _: seen.add(path.read_text()))
        await write_ndjson(stream, path)

    assert {"the old one"} == seen
    assert 400 == len(rows_in(path))


@pytest.mark.parametrize("name", WRITE)
async def test_after_an_error_nothing_is_left(name, tmp_path):
    """A scan that fails leaves no file behind, and its own error comes out."""
    async with FakeIef(400) as fake, session_with(fake, retry=ONCE) as ief:
        fake.script(*[None] * 3, Fault.status(500))
        with pytest.raises(ServerError):
            await WRITE[name](ief.iter_pods(fake.deployment_ids, page_size=50), tmp_path / name)

    assert [] == list(tmp_path.iterdir())


async def test_a_full_disk():
    """What can't be written is an OSError, and the scan is over."""
    async with FakeIef(4_000) as fake, session_with(fake) as ief:
        stream = ief.iter_pods(fake.deployment_ids)
        with io.FileIO("/dev/full", "w") as file, pytest.raises(OSError, match="28"):
            await write_ndjson(stream, file)

        assert not [one for one in asyncio.all_tasks() if "Scan." in one.get_coro().__qualname__]


async def test_a_folder_that_is_not_there(tmp_path):
    """A path that can't be written is an OSError before anything is sent."""
    async with FakeIef(10) as fake, session_with(fake) as ief:
        with pytest.raises(FileNotFoundError):
            await write_ndjson(ief.iter_pods(fake.deployment_ids), tmp_path / "no" / "a")

        assert 0 == fake.statistics().requests


# ---- exports that go on ------------------------------------------------------------------------


async def export(fake, path, state, *, resume=True, pages=2, **options):
    """Export a fleet, or go on with it."""
    async with session_with(fake, retry=ONCE) as ief:
        checkpoint = load_checkpoint(state) if resume else None
        stream = ief.iter_pods(fake.deployment_ids, page_size=50, resume_from=checkpoint)
        write = WRITE[path.name]
        await write(stream, path, checkpoint=state, checkpoint_pages=pages, **options)


@pytest.mark.parametrize("name", WRITE)
async def test_an_export_goes_on_after_an_error(name, tmp_path):
    """After an error the rest is fetched, nothing twice, and the file is as if nothing had been."""
    path, state = tmp_path / name, tmp_path / "state"
    async with FakeIef(600, deployments=3) as fake:
        fake.script(*[None] * 6, Fault.status(500))
        with pytest.raises(ServerError):
            await export(fake, path, state)
        first = fake.statistics().requests
        assert not path.exists()
        assert state.exists()
        await export(fake, path, state)
        pods = await pods_of(fake)

    assert first > 6
    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [1, 4, 9])
async def test_an_export_goes_on_after_a_cancellation(after, tmp_path):
    """A cancelled export saves what it has, and the next one has the rest."""
    path, state = tmp_path / "a.parquet", tmp_path / "state"
    async with FakeIef(600) as fake:
        arrived = itertools.count(1)
        task = asyncio.ensure_future(export(fake, path, state, rows=50))
        fake.intercept(lambda _: task.cancel() if next(arrived) == after else None)
        with pytest.raises(asyncio.CancelledError):
            await task
        fake.intercept(None)
        await export(fake, path, state, rows=50)
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


EXPORT = """
import asyncio, sys
from ief_async import IefSession, Token
from ief_async.sinks import load_checkpoint, write_ndjson, write_parquet

async def main(project, token, endpoint, path, state, *ids):
    async with IefSession(project, credentials=Token(token), endpoint=endpoint) as ief:
        scan = ief.iter_pods(ids, page_size=20, resume_from=load_checkpoint(state))
        write = write_parquet if path.endswith("parquet") else write_ndjson
        await write(scan, path, checkpoint=state, checkpoint_pages=3)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["a.parquet", "a.ndjson"])
async def test_an_export_that_is_killed_is_whole_in_the_end(name, tmp_path):
    """Killed at ten random moments and gone on with, an export has every pod once, in order."""
    path, state = tmp_path / name, tmp_path / "state"
    moments = random.Random(name)
    kills = 0
    async with FakeIef(3_000, deployments=30, latency=0.01) as fake:
        given = [fake.project_id, fake.token, fake.endpoint, str(path), str(state)]
        while not path.exists():
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", EXPORT, *given, *fake.deployment_ids
            )
            begun = fake.statistics().requests
            lives = moments.randint(1, 40) if kills < 10 else 10_000  # requests
            enough = asyncio.Event()
            fake.intercept(
                lambda _, last=begun + lives, enough=enough: (
                    enough.set() if fake.statistics().requests >= last else None
                )
            )
            ended = asyncio.ensure_future(process.wait())
            await asyncio.wait(
                {ended, asyncio.ensure_future(enough.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            await ended
        pods = await pods_of(fake)

    assert 10 == kills
    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["replace", "unlink"])
async def test_an_export_that_is_stopped_while_it_is_joined(step, monkeypatch, tmp_path):
    """Stopped at any step of the end, an export is whole after the next try, and leaves nothing."""
    path, state = tmp_path / "a.parquet", tmp_path / "state"
    real = getattr(Path, step)
    async with FakeIef(300) as fake:
        pods = await pods_of(fake)
        for stop in range(12):
            steps = itertools.count()

            def stopped(self, *given, stop=stop, steps=steps, **options):
                if next(steps) >= stop:
                    raise OSError(5, "stopped")
                return real(self, *given, **options)

            with monkeypatch.context() as patch, contextlib.suppress(OSError):
                patch.setattr(Path, step, stopped)
                await export(fake, path, state)
            await export(fake, path, state)
            assert expected_in(path, pods) == rows_in(path)
            assert [path] == [left for left in tmp_path.iterdir() if not left.name.startswith(".")]
            path.unlink()


async def interrupted(fake, path, state, **options):
    """Leave an export unfinished."""
    fake.script(*[None] * 4, Fault.status(500))
    with pytest.raises(ServerError):
        await export(fake, path, state, **options)


async def test_an_unfinished_export_is_not_begun_again_by_mistake(tmp_path):
    """Where the stream does not go on from the state, the error says what to give it."""
    path, state = tmp_path / "a.parquet", tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        kept = sorted(tmp_path.iterdir())
        with pytest.raises(CheckpointError, match=r"resume_from=load_checkpoint.*delete it"):
            await export(fake, path, state, resume=False)
        assert kept == sorted(tmp_path.iterdir())
        state.unlink()
        await export(fake, path, state)
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


async def test_the_state_of_another_export_is_refused(tmp_path):
    """A state is of one file and one format; parts that are gone are missed at once."""
    path, state = tmp_path / "a.parquet", tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        for other in ("a.arrow", "a.ndjson"):
            with pytest.raises(
                CheckpointError, match=r"to another export, to a\.parquet as parquet"
            ):
                await export(fake, tmp_path / other, state)
        for part in tmp_path.glob("*.part"):
            part.unlink()
        with pytest.raises(CheckpointError, match="which is gone: delete it"):
            await export(fake, path, state)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"ief_async_export": 1}', "\x00"])
async def test_a_damaged_state_is_refused(text, tmp_path):
    """A state that is none is a CheckpointError, not a new beginning."""
    state = tmp_path / "state"
    state.write_text(text)
    async with FakeIef(6) as fake:
        with pytest.raises(CheckpointError, match="damaged"):
            await export(fake, tmp_path / "a.ndjson", state)
        with pytest.raises(CheckpointError, match="is not the state of an export"):
            await export(fake, tmp_path / "a.ndjson", state, resume=False)


def test_a_state_of_a_newer_release_is_refused(tmp_path):
    """The error of a newer state names both versions."""
    (tmp_path / "state").write_text('{"ief_async_export": 3}')

    with pytest.raises(CheckpointError, match=r"version 3.* reads 2"):
        load_checkpoint(tmp_path / "state")


async def test_checkpoints_are_kept_in_files(tmp_path):
    """What is saved is loaded; a file that is not there is no checkpoint."""
    state = tmp_path / "state"
    async with FakeIef(300) as fake, session_with(fake) as ief:
        async with ief.iter_pods(fake.deployment_ids) as stream:
            async for _ in stream.pages():
                break
        assert load_checkpoint(state) is None
        save_checkpoint(stream.checkpoint(), state)

    assert stream.checkpoint() == load_checkpoint(state)
    assert [state] == list(tmp_path.iterdir())


async def test_a_state_holds_no_secret(tmp_path):
    """The state of an export names files and columns, and neither token nor pods nor ids."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        text = state.read_text()
        assert fake.token not in text
        assert fake.project_id not in text
        assert not any(identity in text for identity in fake.deployment_ids)


def test_importing_sinks_is_light():
    """The module itself needs no pyarrow: NDJSON is written without it."""
    code = "import ief_async.sinks, sys; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()
