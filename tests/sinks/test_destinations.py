"""Exports that are stopped at bad moments, put in bad places, or run beside each other."""

import asyncio
import io
import os
import sys
from pathlib import Path

import attrs
import pytest
from conftest import session_with, until
from exports import (
    ONCE,
    Slow,
    expected_in,
    export,
    interrupted,
    pods_of,
    rows_in,
    tasks_of_scans,
)

from ief_async import (
    CheckpointError,
    ConfigurationError,
    PartialScanError,
    Pod,
    RetryPolicy,
    ServerError,
    Target,
    Token,
    scan_fleet,
)
from ief_async.sinks import (
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
from ief_async.sinks._formats import LineWriter
from ief_async.testing import Account, FakeIef, Fault

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.mark.parametrize("cancels", [1, 3])
async def test_rows_that_wait_for_a_thread_are_saved(cancels, monkeypatch, tmp_path):
    """Cancelled, however often, while a slow disk holds it up, an export loses no row."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    async with FakeIef(600) as fake:
        many = asyncio.Event()  # pages, which wait behind the slow one
        fake.intercept(lambda _: many.set() if fake.statistics().requests > 6 else None)
        with monkeypatch.context() as patch:
            slow = Slow(patch, LineWriter, "write")
            task = asyncio.ensure_future(export(fake, path, state, pages=100))
            await slow.is_entered()
            await many.wait()
            await until(lambda: fake.statistics().in_flight == 0)
            for _ in range(cancels):
                task.cancel()
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            slow.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert 1 == slow.most
        await export(fake, path, state)
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_ndjson, write_parquet])
async def test_a_file_that_is_cancelled_at_once_is_not_there(write, monkeypatch, tmp_path):
    """Cancelled while its file is opened, an export leaves nothing."""
    async with FakeIef(60) as fake, session_with(fake) as ief:
        slow = Slow(monkeypatch, Path, "exists")
        stream = ief.iter_pods(fake.deployment_ids)
        task = asyncio.ensure_future(write(stream, tmp_path / "a"))
        await slow.is_entered()
        task.cancel()
        slow.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert [] == list(tmp_path.iterdir())
    assert 0 == fake.statistics().requests


async def test_a_part_that_could_not_be_closed_is_read_again(monkeypatch, tmp_path):
    """A disk that is full for a moment costs what came since the last save, and no row."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    real = os.fsync
    calls = []

    def full(number):
        calls.append(number)
        if len(calls) == 4:  # state, part, state, part
            raise OSError(28, "full")
        real(number)

    async with FakeIef(600) as fake:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="full"):
                await export(fake, path, state)
        await export(fake, path, state)
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


async def test_what_ended_an_export_is_told_first(monkeypatch, tmp_path):
    """An error stays itself where its export can't be saved, with a note on that."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"

    def full(_):
        raise OSError(28, "full")

    async with FakeIef(600) as fake:
        fake.script(*[None] * 4, Fault.status(500))
        fake.intercept(lambda _: monkeypatch.setattr(os, "fsync", full))
        with pytest.raises(ServerError) as caught:
            await export(fake, path, state, pages=100)

    assert any("are not saved: OSError(28, 'full')" in note for note in caught.value.__notes__)


async def test_exports_leave_each_others_parts_alone(tmp_path):
    """An export to a name that begins another's does not take its parts for leftovers."""
    zipped, plain = tmp_path / "a.ndjson.gz", tmp_path / "a.ndjson"
    async with FakeIef(600) as fake:
        await interrupted(fake, zipped, tmp_path / "a.ndjson.state")
        await export(fake, plain, tmp_path / "state", resume=False)
        await export(fake, zipped, tmp_path / "a.ndjson.state")
        pods = await pods_of(fake)

    assert expected_in(zipped, pods) == rows_in(zipped)
    assert rows_in(plain) == rows_in(zipped)
    assert {plain, zipped} == set(tmp_path.iterdir())


async def test_two_exports_to_one_file_do_not_mix(tmp_path):
    """Where the same export runs twice at once, one is whole, and the other one says why not."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    async with FakeIef(600, latency=0.002) as fake:
        both = (export(fake, path, state, pages=pages, resume=False) for pages in (1, 3))
        ends = await asyncio.gather(*both, return_exceptions=True)
        pods = await pods_of(fake)

    assert {CheckpointError, type(None)} == set(map(type, ends))
    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


async def test_the_folder_may_be_changed_meanwhile(monkeypatch, tmp_path):
    """A relative path is meant where the export began."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    async with FakeIef(100) as fake, session_with(fake) as ief:
        fake.intercept(lambda _: os.chdir("/"))
        stream = ief.iter_pods(fake.deployment_ids)
        await write_ndjson(stream, "a.ndjson", checkpoint="state", checkpoint_pages=1)
        monkeypatch.chdir(tmp_path)
        await write_ndjson(ief.iter_pods(fake.deployment_ids), "b.ndjson")

    assert {"a.ndjson", "b.ndjson", "other"} == {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("name", ["[a-z]*?.ndjson", "-a b\n.ndjson", ".ndjson", "é" * 100])
async def test_odd_names(name, tmp_path):
    """Whatever a file is called, it is resumed, and nothing else is left."""
    path, state = tmp_path / name, tmp_path / f"{name}.state"

    async def again(fake, resume_from=None):
        async with session_with(fake, retry=ONCE) as ief:
            stream = ief.iter_pods(fake.deployment_ids, page_size=50, resume_from=resume_from)
            await write_ndjson(stream, path, checkpoint=state, checkpoint_pages=1)

    async with FakeIef(600) as fake:
        fake.script(*[None] * 4, Fault.status(500))
        with pytest.raises(ServerError):
            await again(fake)
        await again(fake, load_checkpoint(state))
        pods = await pods_of(fake)

    assert len(pods) == path.read_bytes().count(b"\n")
    assert [path] == list(tmp_path.iterdir())


async def test_bad_places_are_refused_before_anything_is_sent(monkeypatch, tmp_path):
    """Folders, pipes, text files, missing folders and one path for two things can't be written."""
    file, folder, pipe = tmp_path / "a.ndjson", tmp_path / "folder", tmp_path / "pipe"
    folder.mkdir()
    os.mkfifo(pipe)
    state = tmp_path / "state"
    before = set(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = [
        (folder, None, ConfigurationError, "can't be replaced, as it is not a file"),
        (folder, state, ConfigurationError, "can't be replaced, as it is not a file"),
        (pipe, None, ConfigurationError, "or a file object"),
        ("", None, ConfigurationError, "can't be replaced, as it is not a file"),
        (io.StringIO(), None, ConfigurationError, "binary file, got StringIO"),
        (file, file, ConfigurationError, "another path than to"),
        (file, folder / ".." / file.name, ConfigurationError, "another path than to"),
        (file, folder, OSError, "folder"),
        (file, tmp_path / "no" / "state", OSError, "no/"),
        (tmp_path / "no" / "a.ndjson", tmp_path / "s", OSError, "no"),
        (tmp_path / "a.zst", state, ConfigurationError, "pip install"),
    ]
    async with FakeIef(60) as fake, session_with(fake) as ief:
        for to, checkpoint, error, problem in refused:
            with pytest.raises(error, match=problem):
                await write_ndjson(ief.iter_pods(["d"]), to, checkpoint=checkpoint)
            (tmp_path / "s").unlink(missing_ok=True)

    assert before == set(tmp_path.iterdir())
    assert 0 == fake.statistics().requests


class Dribble(io.RawIOBase):
    """A file without a buffer, which takes a few bytes at a time."""

    def __init__(self):
        self.taken = bytearray()

    def writable(self):
        """Tell that it can be written."""
        return True

    def write(self, data):
        """Take some of it."""
        some = bytes(data[:1000])
        self.taken += some
        return len(some)


class Silent:
    """A file whose `write` says nothing."""

    def __init__(self):
        self.taken = bytearray()

    def write(self, data):
        """Take all of it."""
        self.taken += data


@pytest.mark.parametrize("kind", [Dribble, Silent])
@pytest.mark.parametrize("write", [write_ndjson, write_arrow, write_parquet])
async def test_a_file_may_take_a_part_at_a_time(write, kind, tmp_path):
    """What a file object does not take at once is offered again."""
    name = {write_arrow: "a.arrows", write_parquet: "a.parquet"}.get(write, "a.ndjson")
    path = tmp_path / name
    file = kind()
    async with FakeIef(120) as fake, session_with(fake) as ief:
        await write(ief.iter_pods(fake.deployment_ids), file)
        pods = await pods_of(fake)

    path.write_bytes(file.taken)
    assert expected_in(path, pods) == rows_in(path)


async def test_a_new_beginning_needs_no_leave_while_nothing_is_kept(tmp_path):
    """A state without parts is no unfinished work: another stream may begin."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    async with FakeIef(100) as fake:
        fake.script(Fault.status(500))
        with pytest.raises(ServerError):
            await export(fake, path, state)
        assert load_checkpoint(state) is not None
        async with session_with(fake) as ief:
            await write_ndjson(
                ief.iter_pods(fake.deployment_ids, page_size=33), path, checkpoint=state
            )
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


# ---- fleets and policies -----------------------------------------------------------------------


def targets_of(*fakes):
    """Return a target for each fake."""
    return [
        Target(project_id=fake.project_id, credentials=Token(fake.token), endpoint=fake.endpoint)
        for fake in fakes
    ]


@pytest.mark.parametrize("write", [write_ndjson, write_parquet])
@pytest.mark.parametrize("on_error", ["raise", "defer"])
async def test_an_export_of_a_fleet_goes_on(on_error, write, tmp_path):
    """Of scan_fleet, too: after a failing target, and one that was done, the file is whole."""
    path = tmp_path / ("a.ndjson" if write is write_ndjson else "a.parquet")
    state = tmp_path / "state"
    model = narrowed(Pod, ["id"])
    async with (
        FakeIef(40) as one,
        FakeIef(900, seed=2, account=Account(project_id="p" * 32)) as two,
    ):

        async def go():
            stream = scan_fleet(
                targets_of(one, two),
                model=model,
                page_size=50,
                on_error=on_error,
                retry=RetryPolicy(attempts=1),
                resume_from=load_checkpoint(state),
            )
            await write(stream, path, checkpoint=state, checkpoint_pages=2)

        two.script(*[None] * 9, Fault.status(500))
        with pytest.raises(ServerError if on_error == "raise" else PartialScanError):
            await go()
        assert not path.exists()
        await go()
        expected = sorted(
            (target.name, pod["id"])
            for target, fake in zip(targets_of(one, two), (one, two), strict=True)
            for pod in fake.pods
        )

    assert expected == sorted((row["target"], row["id"]) for row in rows_in(path))
    assert [path] == list(tmp_path.iterdir())


async def test_batches_that_failed_are_added_on_the_next_call(tmp_path):
    """With "defer" the rest is saved, and only what failed is read again."""
    path, state = tmp_path / "a.parquet", tmp_path / "state"
    async with FakeIef(600, deployments=6) as fake:

        async def go():
            async with session_with(fake, retry=ONCE) as ief:
                stream = ief.iter_pods(
                    fake.deployment_ids,
                    batch_size=1,
                    on_error="defer",
                    resume_from=load_checkpoint(state),
                )
                await write_parquet(stream, path, checkpoint=state)

        fake.script(*[None] * 2, Fault.status(500))
        with pytest.raises(PartialScanError):
            await go()
        before = fake.statistics().requests
        await go()
        again = fake.statistics().requests - before

    assert sorted(pod["id"] for pod in fake.pods) == sorted(row["id"] for row in rows_in(path))
    assert again <= 3
    assert [path] == list(tmp_path.iterdir())


@attrs.frozen
class Clashing:
    """A model with the names of columns that are added."""

    id: str
    target: str | None = None
    created_at: str | None = None
    created_at_text: str | None = None


async def test_columns_of_one_name_are_refused(tmp_path):
    """A field that is named as an added column is an error that says how to leave it out."""
    async with FakeIef(3) as fake, session_with(fake) as ief:
        with pytest.raises(ConfigurationError, match=r"'created_at_text', .*narrowed\(\)"):
            await read_table(ief.iter_pods(["d"], model=Clashing))
        with pytest.raises(ConfigurationError, match="has a field 'target', which is also"):
            await write_ndjson(scan_fleet(targets_of(fake), model=Clashing), tmp_path / "a")


# ---- batches -----------------------------------------------------------------------------------


async def test_rows_before_an_error_of_the_ids_come_first():
    """Whatever the ids raise, it is raised behind the rows that came before it."""
    seen = []
    async with FakeIef(250, deployments=1) as fake, session_with(fake) as ief:
        read = asyncio.Event()

        async def ids():
            yield fake.deployment_ids[0]
            yield "another"  # closes the batch of the first
            await read.wait()
            raise KeyError

        stream = ief.iter_pods(ids(), batch_size=1)
        batches = record_batches(stream)
        task = asyncio.ensure_future(anext(batches))
        await until(lambda: stream.progress.items >= 250)
        read.set()
        seen += (await task)["id"].to_pylist()
        with pytest.raises(KeyError):
            await anext(batches)
        with pytest.raises(StopAsyncIteration):
            await anext(batches)

    assert [pod["id"] for pod in fake.pods] == seen


@pytest.mark.parametrize("read", [100, 200])
async def test_batches_that_are_cancelled_end(monkeypatch, read):
    """Cancelled while a batch is made, or the next one read, they end, and leave no gap."""
    async with FakeIef(2_000) as fake, session_with(fake) as ief:
        slow = Slow(monkeypatch, Columns, "batch")
        stream = ief.iter_pods(fake.deployment_ids, page_size=100)
        batches = record_batches(stream, rows=100)
        task = asyncio.ensure_future(anext(batches))
        await slow.is_entered()
        await until(lambda: stream.progress.items >= read)
        task.cancel()
        slow.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [] == [batch async for batch in batches]
        assert not tasks_of_scans()


async def test_an_error_while_a_batch_is_made_is_raised_once(monkeypatch):
    """What goes wrong in the thread comes out, and the scan is over."""

    def broken(_, __):
        raise MemoryError

    monkeypatch.setattr(Columns, "batch", broken)
    async with FakeIef(2_000) as fake, session_with(fake) as ief:
        batches = record_batches(ief.iter_pods(fake.deployment_ids), rows=100)
        with pytest.raises(MemoryError):
            await anext(batches)
        await until(lambda: not tasks_of_scans())
        assert [] == [batch async for batch in batches]
        assert not tasks_of_scans()


# ---- what stands there already -------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("write", [write_ndjson, write_parquet, write_arrow])
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o400, 0o200])
async def test_a_file_that_is_replaced_keeps_its_mode(mode, write, checkpoint, tmp_path):
    """Who could not read the old file can't read the new one, nor anything of it meanwhile."""
    path = tmp_path / "pods"
    path.write_bytes(b"old")
    path.chmod(mode)
    wider = []

    def look(_):
        modes = [found.stat().st_mode for found in tmp_path.glob("*pods*part")]
        wider.extend(one for one in modes if one & ~mode & 0o077)

    async with FakeIef(300) as fake, session_with(fake) as ief:
        fake.intercept(look)
        saves = {"checkpoint": tmp_path / "state", "checkpoint_pages": 1} if checkpoint else {}
        await write(ief.iter_pods(fake.deployment_ids), path, **saves)

    assert mode == path.stat().st_mode & 0o777
    assert not wider
    assert b"old" != path.read_bytes()


@pytest.mark.parametrize("umask", [0o022, 0o077])
async def test_a_new_file_has_what_the_umask_leaves(umask, tmp_path):
    """A file that replaces none is made as any other program would make it."""
    before = os.umask(umask)
    try:
        async with FakeIef(30) as fake, session_with(fake) as ief:
            await write_ndjson(ief.iter_pods(fake.deployment_ids), tmp_path / "a.ndjson")
    finally:
        os.umask(before)

    assert 0o666 & ~umask == (tmp_path / "a.ndjson").stat().st_mode & 0o777


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("there", [True, False])
async def test_a_symbolic_link_is_followed(there, checkpoint, tmp_path):
    """A link stays one, and what it leads to is the new file, as the name of the link says."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    if there:
        (folder / "file").write_bytes(b"old")
    link = tmp_path / "latest.ndjson.gz"
    link.symlink_to(folder / "file")
    state = tmp_path / "state"
    async with FakeIef(300) as fake, session_with(fake) as ief:
        saves = {"checkpoint": state, "checkpoint_pages": 1} if checkpoint else {}
        await write_ndjson(ief.iter_pods(fake.deployment_ids), link, **saves)
        pods = await pods_of(fake)

    assert link.is_symlink()
    assert [folder / "file"] == list(folder.iterdir())
    assert {folder, link} == set(tmp_path.iterdir())
    assert expected_in(link, pods) == rows_in(link)


async def test_a_checkpoint_keeps_its_mode_and_its_link(tmp_path):
    """The file of a checkpoint is replaced as that of an export is."""
    kept = tmp_path / "kept"
    kept.write_text("old")
    kept.chmod(0o600)
    (tmp_path / "link").symlink_to(kept)
    async with FakeIef(30) as fake, session_with(fake) as ief:
        save_checkpoint(ief.iter_pods(fake.deployment_ids).checkpoint(), tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert 0o600 == kept.stat().st_mode & 0o777
    assert "old" != kept.read_text()
