"""Files hold what the stream held, and are whole or not there."""

import asyncio
import contextlib
import io
import itertools
import os
import random
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import session_with
from exports import (
    ONCE,
    WRITE,
    expected_in,
    export,
    interrupted,
    pods_of,
    rows_in,
)

from ief_async import (
    CheckpointError,
    ServerError,
)
from ief_async.sinks import (
    write_arrow,
    write_ndjson,
    write_parquet,
)
from ief_async.testing import FakeIef, Fault

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
from pyarrow import parquet  # noqa: E402  after the line that says whether it is there

# ---- files -------------------------------------------------------------------------------------


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


async def test_a_parquet_file_is_small(tmp_path):
    """A file is much smaller than its table is with pyarrow's defaults and the same compression."""
    path, usual = tmp_path / "a.parquet", tmp_path / "usual.parquet"
    async with FakeIef(10_000) as fake, session_with(fake) as ief:
        await write_parquet(ief.iter_pods(fake.deployment_ids, page_size=1_000), path)
    parquet.write_table(parquet.read_table(path), usual, compression="zstd")

    assert path.stat().st_size < 0.7 * usual.stat().st_size


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


@pytest.mark.once  # starts processes, and kills them
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


@pytest.mark.once  # starts processes, and kills them
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


def test_importing_sinks_is_light():
    """The module itself needs no pyarrow: NDJSON is written without it."""
    code = "import ief_async.sinks, sys; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()
