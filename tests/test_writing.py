"""Files that take what they like, and files that two would write: nothing is lost or doubled."""

import asyncio
import errno
import io
import itertools
import json
import os
import random
import select
import threading
from pathlib import Path

import attrs
import pytest
from conftest import examples, session_with
from exports import (
    WRITE,
    Slow,
    expected_in,
    export,
    interrupted,
    pods_of,
    rows_in,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from ief_async import CheckpointError, ConfigurationError, _writing
from ief_async.sinks import load_checkpoint, write_arrow, write_ndjson, write_parquet
from ief_async.sinks._formats import LineWriter
from ief_async.sinks._state import checksum
from ief_async.testing import FakeIef

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

# what a file object gets instead of a path of this name
NAMED = {"a.arrow": "a.arrows", "a.feather": "a.arrows"}
HELD_BACK = ("part", "none", "zero", "blocked", "blocked part")
WRONG = ("too much", "negative", "true", "text", "coroutine")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Let no test wait long for a file that never takes anything."""
    monkeypatch.setattr(_writing, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(_writing, "SHORTEST_SECONDS", 0.00001)


class Reluctant:
    """A file that takes what its plan says, and says what its plan says."""

    def __init__(self, plan):
        self.taken = bytearray()
        self._plan = itertools.cycle(plan)

    def take(self, data):
        """Take some bytes."""
        self.taken += data

    def write(self, data):
        """Take as much as is planned."""
        plan = next(self._plan)
        some = bytes(data[: {"all": None, "silent": None, "too much": None}.get(plan, 7_001)])
        if plan in {"all", "silent", "too much", "part", "blocked part"}:
            self.take(some)
        if plan.startswith("blocked"):
            given = [len(some)] if plan == "blocked part" else []
            raise BlockingIOError(errno.EAGAIN, "full", *given)
        said = {"none": None, "silent": None, "zero": 0, "negative": -1, "true": True}
        return {**said, "too much": len(some) + 1, "text": "7", "coroutine": 1.0}.get(
            plan, len(some)
        )


class Raw(Reluctant, io.RawIOBase):
    """The same, as `io` has it, where None means that nothing was taken."""

    def writable(self):
        """Tell that it can be written."""
        return True


class Onto(Reluctant, io.FileIO):
    """The same, on a disk."""

    def __init__(self, path, mode, plan):
        io.FileIO.__init__(self, path, mode)
        Reluctant.__init__(self, plan)

    def take(self, data):
        """Bring it to the disk."""
        io.FileIO.write(self, data)


# ---- whatever a file takes at a time -----------------------------------------------------------


@settings(max_examples=examples(300))
@given(
    st.sampled_from([Reluctant, Raw]),
    st.lists(st.sampled_from(["all", *HELD_BACK, *WRONG]), min_size=1, max_size=5),
    st.lists(st.integers(0, 20_000), min_size=1, max_size=4),
)
def test_all_is_taken_or_it_is_an_error(kind, plan, sizes):
    """What is written without an error is in the file, in order, and once."""
    if kind is Reluctant and not any(one in plan for one in ("all", "part")):
        plan = ["all", *plan]  # a file that only ever says None is taken at its word
    plan = sorted(plan, key=lambda one: one == "none")
    pieces = [bytes([at]) * size for at, size in enumerate(sizes)]
    file = kind(plan)
    out = _writing.exact(file)
    problem = None
    try:
        for piece in pieces:
            assert len(piece) == out.write(piece)
        out.flush()
    except OSError as error:
        problem = error

    assert not isinstance(problem, BlockingIOError)
    assert b"".join(pieces).startswith(file.taken)
    if problem is None:
        assert b"".join(pieces) == file.taken
        assert len(file.taken) == out.taken


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_number_that_can_not_be_is_an_error(wrong):
    """A `write` that says more than it was given, less than nothing, or no number, ends it."""
    async with FakeIef(30) as fake, session_with(fake) as ief:
        with pytest.raises(OSError, match=r"write\(\) of a Reluctant returned .* is unknown"):
            await write_ndjson(ief.iter_pods(fake.deployment_ids), Reluctant([wrong]))


@pytest.mark.parametrize("kind", [Reluctant, Raw])
@pytest.mark.parametrize("write", [write_ndjson, write_arrow, write_parquet])
async def test_a_file_that_takes_nothing_is_an_error(write, kind):
    """Where nothing tells when a file takes more, it is waited for a while, and not for ever."""
    async with FakeIef(30) as fake, session_with(fake) as ief:
        with pytest.raises(TimeoutError, match=f"a {kind.__name__} accepted no byte for 0.05 s"):
            await write(ief.iter_pods(fake.deployment_ids), kind(["zero"]))


async def test_a_file_that_says_now_this_and_now_that_is_an_error():
    """A number after a None leaves it open what the None meant."""
    async with FakeIef(300) as fake, session_with(fake) as ief:
        with pytest.raises(OSError, match="after None"):
            await write_ndjson(ief.iter_pods(fake.deployment_ids), Reluctant(["none", "all"]))


def _uncompressed(name):
    """Return the name of what a file object gets, which has no suffix to be compressed by."""
    return name.removesuffix(".gz").removesuffix(".zst")


@pytest.mark.parametrize("rows", [0, 1, 240])
@pytest.mark.parametrize("name", WRITE)
async def test_every_format_reaches_every_file(name, rows, monkeypatch, tmp_path):
    """In each format, to a path and to a file object, all rows are there."""
    plans = random.Random(f"{name} {rows}")
    real = Path.open
    async with FakeIef(rows) as fake, session_with(fake) as ief:
        pods = await pods_of(fake)

        async def written(to):
            await WRITE[name](ief.iter_pods(fake.deployment_ids, page_size=50), to)

        for kind in (Onto, Raw, Reluctant):
            plan = ["part", *plans.choices(HELD_BACK, k=4)]
            path = tmp_path / (name if kind is Onto else _uncompressed(NAMED.get(name, name)))
            if kind is Onto:

                def opened(self, mode="r", *given, plan=plan, **options):
                    if mode == "xb":
                        return Onto(self, mode, plan)
                    return real(self, mode, *given, **options)

                with monkeypatch.context() as patch:
                    patch.setattr(Path, "open", opened)
                    await written(path)
            else:
                file = kind(plan)
                await written(file)
                path.write_bytes(file.taken)
            assert expected_in(path, pods) == rows_in(path)
            path.unlink()


@pytest.mark.parametrize("buffered", [False, True], ids=["raw", "buffered"])
@pytest.mark.parametrize("write", [write_ndjson, write_arrow, write_parquet])
async def test_a_full_pipe_that_does_not_block_is_waited_for(write, buffered, tmp_path):
    """What a slow reader of a pipe reads is whole, though the pipe takes no more for a while."""
    path = tmp_path / {write_arrow: "a.arrows", write_parquet: "a.parquet"}.get(write, "a.ndjson")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def read():
        poll = select.poll()
        poll.register(writer, select.POLLOUT)
        while poll.poll(0) and not ended.is_set():
            ended.wait(0.001)
        with io.FileIO(reader) as file:
            path.write_bytes(b"".join(iter(lambda: file.read(5_000), b"")))

    ended = threading.Event()
    thread = threading.Thread(target=read)
    thread.start()
    raw = io.FileIO(writer, "w")
    file = io.BufferedWriter(raw) if buffered else raw
    try:
        async with FakeIef(900) as fake, session_with(fake) as ief:
            await write(ief.iter_pods(fake.deployment_ids), file)
            pods = await pods_of(fake)
    finally:
        ended.set()
        raw.close()  # as if there was no buffer: what it still held would be lost
        await asyncio.to_thread(thread.join)

    assert expected_in(path, pods) == rows_in(path)


class Late(io.BytesIO):
    """A file that fails when it is flushed."""

    def flush(self):
        """Fail."""
        raise OSError(errno.EIO, "late")


async def test_what_can_not_be_flushed_is_no_success():
    """An error of `flush` comes out."""
    async with FakeIef(3) as fake, session_with(fake) as ief:
        with pytest.raises(OSError, match="late"):
            await write_ndjson(ief.iter_pods(fake.deployment_ids), Late())


async def test_a_closed_file_is_refused():
    """A file that is closed already is refused before anything is sent."""
    file = io.BytesIO()
    file.close()
    async with FakeIef(3) as fake, session_with(fake) as ief:
        with pytest.raises(ConfigurationError, match="got a closed one"):
            await write_ndjson(ief.iter_pods(fake.deployment_ids), file)

    assert 0 == fake.statistics().requests


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_a_page_is_in_a_file_or_not(mode, tmp_path):
    """What fails half way is cut off a file again, if nobody else wrote there meanwhile."""
    path = tmp_path / "a"
    path.write_bytes(b"before\n")
    for other in (b"", b"other\n"):
        with path.open(mode, buffering=0) as file, path.open("ab", buffering=0) as others:
            out = _writing.exact(file)
            out.write(b"one\n")
            before = path.read_bytes()
            with pytest.raises(KeyError), out.transaction():
                out.write(b"tw")
                others.write(other)
                raise KeyError
            assert bool(other) == out.torn
            assert before + (b"tw" + other if other else b"") == path.read_bytes()


# ---- parts that are not what was written -------------------------------------------------------


def part_of(folder):
    """Return the first part of an unfinished export."""
    return min(folder.glob("a.*.part"))


def shorten(path, *, by):
    """Take bytes off the end of a file."""
    os.truncate(path, max(path.stat().st_size - by, 0))


def flip(path):
    """Change a byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def link(path):
    """Put a link to the same bytes in the place of a file."""
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other)


def make_folder(path):
    """Put a folder in the place of a file."""
    path.unlink()
    path.mkdir()


PARTS = {
    "a byte less": lambda path: shorten(path, by=1),
    "without its end": lambda path: shorten(path, by=8),
    "half of it": lambda path: shorten(path, by=path.stat().st_size // 2),
    "nothing of it": lambda path: shorten(path, by=path.stat().st_size),
    "more": lambda path: path.write_bytes(path.read_bytes() * 2),
    "another byte": flip,
    "a link": link,
    "a folder": make_folder,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("change", PARTS)
@pytest.mark.parametrize("name", ["a.ndjson", "a.parquet"])
async def test_a_part_that_is_not_what_was_written_is_refused(name, change, tmp_path):
    """Shorter, longer, or other bytes: nothing is sent, and no file is made of it."""
    path, state = tmp_path / name, tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        PARTS[change](part_of(tmp_path))
        before, kept = fake.statistics().requests, sorted(tmp_path.iterdir())
        with pytest.raises(CheckpointError, match=r"part.*delete it to start over"):
            await export(fake, path, state)
        assert before == fake.statistics().requests
        assert kept == sorted(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.ndjson", "a.parquet"])
async def test_a_part_that_is_cut_while_the_export_runs(name, tmp_path):
    """What happens to a part before the end is seen at the end, and the state stays."""
    path, state = tmp_path / name, tmp_path / "state"
    uncut = []
    async with FakeIef(600) as fake:

        def cut(_):
            if not uncut and list(tmp_path.glob("a.*.part")):
                uncut.append(part_of(tmp_path))
                shorten(*uncut, by=8)
            return True

        with pytest.raises(CheckpointError, match="which was changed or cut"):
            await export(fake, path, state, keep=cut)
        assert state.exists()
        assert not path.exists()


def summed(said):
    """Return a state with a sum that fits."""
    said = {name: value for name, value in said.items() if name != "sum"}
    return {**said, "sum": checksum(said)}


STATES = {
    "one part less": lambda said: said["parts"].pop(),
    "no part": lambda said: said["parts"].clear(),
    "a part twice": lambda said: said["parts"].append(said["parts"][0]),
    "parts turned": lambda said: said["parts"].reverse(),
    "another size": lambda said: said["parts"][0].__setitem__(1, 3),
    "no figures": lambda said: said["parts"].__setitem__(0, said["parts"][0][:1]),
    "another form": lambda said: said.update(form="arrow"),
    "another field": lambda said: said["fields"].pop(),
    "no sum": lambda said: said.pop("sum"),
    "no checkpoint": lambda said: said.pop("checkpoint"),
    "one of its own": lambda said: said["checkpoint"].update(scan="0"),
    "an older version": lambda said: said.update(ief_async_export=1),
    "no list": lambda said: said.update(parts=7),
}


@pytest.mark.parametrize("change", STATES)
async def test_a_state_that_was_changed_is_refused(change, tmp_path):
    """Whatever in a state is other than it was written, the export does not go on with it."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        checkpoint = load_checkpoint(state)
        said = json.loads(state.read_bytes())
        STATES[change](said)
        state.write_text(json.dumps(said))
        kept = sorted(tmp_path.iterdir())
        async with session_with(fake) as ief:
            stream = ief.iter_pods(fake.deployment_ids, page_size=50, resume_from=checkpoint)
            with pytest.raises(CheckpointError):
                await write_ndjson(stream, path, checkpoint=state)
        assert kept == sorted(tmp_path.iterdir())


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a.ndjson", "a.ndjson.0123456g.part", ".", "b.ndjson.01234567.part"],
)
async def test_a_part_that_leads_elsewhere_is_refused(name, version, tmp_path):
    """A part has a name that an export gives, and lies beside the file."""
    path, state = tmp_path / "folder" / "a.ndjson", tmp_path / "state"
    path.parent.mkdir()
    (tmp_path / "x").write_bytes(b"{}\n")
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        said = json.loads(state.read_bytes())
        said["ief_async_export"] = version
        said["parts"] = [name] if version == 1 else [[name, 3, 0, 1]]
        state.write_text(json.dumps(summed(said)))
        with pytest.raises(CheckpointError, match="which is not a part of this export"):
            await export(fake, path, state)

    assert b"{}\n" == (tmp_path / "x").read_bytes()


@pytest.mark.parametrize("name", ["a.ndjson", "a.parquet"])
async def test_a_state_of_the_first_version_goes_on(name, tmp_path):
    """A state that knows only the names of its parts is gone on with; one cut short is refused."""
    path, state = tmp_path / name, tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        said = json.loads(state.read_bytes())
        said.pop("sum")
        said |= {"ief_async_export": 1, "parts": [part[0] for part in said["parts"]]}
        state.write_text(json.dumps(said, indent=1))
        whole = part_of(tmp_path).read_bytes()
        shorten(part_of(tmp_path), by=8)
        with pytest.raises(CheckpointError, match="which was changed or cut"):
            await export(fake, path, state)
        part_of(tmp_path).write_bytes(whole)
        await export(fake, path, state)
        pods = await pods_of(fake)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


async def test_a_checkpoint_without_its_rows_is_refused(tmp_path):
    """Who read the state before another run finished with it does not write the rest as a whole."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        old = load_checkpoint(state)
        await export(fake, path, state)
        pods = await pods_of(fake)
        async with session_with(fake) as ief:
            stream = ief.iter_pods(fake.deployment_ids, page_size=50, resume_from=old)
            with pytest.raises(CheckpointError, match=r"state does not exist.*no resume_from"):
                await write_ndjson(stream, path, checkpoint=state)

    assert expected_in(path, pods) == rows_in(path)
    assert [path] == list(tmp_path.iterdir())


# ---- one at a time -----------------------------------------------------------------------------


@attrs.frozen
class Export:
    """Where an export writes to, and where its state is."""

    to: str
    checkpoint: str | None = None

    async def run(self, fake, folder):
        """Run it."""
        state = None if self.checkpoint is None else folder / self.checkpoint
        async with session_with(fake) as ief:
            stream = ief.iter_pods(fake.deployment_ids, page_size=50)
            await write_ndjson(stream, folder / self.to, checkpoint=state)


PAIRS = {
    "the same": (Export("a", "s"), Export("a", "s")),
    "one checkpoint": (Export("a", "s"), Export("b", "s")),
    "one place": (Export("a", "s"), Export("a", "t")),
    "one place without checkpoints": (Export("a"), Export("a")),
    "one place, the second with a checkpoint": (Export("a"), Export("a", "s")),
    "one place, the first with a checkpoint": (Export("a", "s"), Export("a")),
    "the first one's checkpoint is the second one's place": (Export("a", "s"), Export("s")),
    "the second one's checkpoint is the first one's place": (Export("a"), Export("b", "a")),
    "a path around": (Export("a"), Export("folder/../a")),
    "a linked folder": (Export("a", "s"), Export("here/a")),
    "a linked folder of the checkpoint": (Export("a", "s"), Export("b", "here/s")),
    "a linked file": (Export("a"), Export("linked")),
}


@pytest.mark.parametrize("pair", PAIRS)
async def test_what_one_export_writes_no_other_does(pair, monkeypatch, tmp_path):
    """The second is refused before it sends anything, the first is whole, and nothing is left."""
    first, second = PAIRS[pair]
    (tmp_path / "folder").mkdir()
    (tmp_path / "here").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    before = set(tmp_path.iterdir())
    async with FakeIef(300) as fake, FakeIef(300) as other:
        slow = Slow(monkeypatch, LineWriter, "write")
        running = asyncio.ensure_future(first.run(fake, tmp_path))
        await slow.is_entered()
        refused = pytest.raises(
            (CheckpointError, ConfigurationError), match=r"is in use by another.*wait until it ends"
        )
        with refused:
            await second.run(other, tmp_path)
        assert 0 == other.statistics().requests
        slow.go_on.set()
        await running
        pods = await pods_of(fake)

    assert before | {tmp_path / "a"} == set(tmp_path.iterdir())
    assert [pod.id for pod in pods] == [
        json.loads(line)["id"] for line in (tmp_path / "a").read_text().splitlines()
    ]


def test_a_lock_is_held_by_one(tmp_path):
    """However many take it and let it go at once, one holds it at a time, and no lock is left."""
    path = tmp_path / "a"
    inside, most, taken = [], [], []

    def work():
        for _ in range(300):
            with _writing.Hold() as hold:
                try:
                    hold.take(path, ConfigurationError)
                except ConfigurationError:
                    continue
                inside.append(1)
                most.append(len(inside))
                taken.append(1)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {1} == set(most)
    assert len(taken) >= 4
    assert [] == list(tmp_path.iterdir())


def test_a_lock_that_was_left_locks_nothing(tmp_path):
    """What a killed process leaves behind is taken, and removed in the end."""
    (tmp_path / ".a.lock").touch()
    with _writing.Hold() as hold:
        hold.take(tmp_path / "a", ConfigurationError)

    assert [] == list(tmp_path.iterdir())


async def test_a_file_system_without_locks_is_said(monkeypatch, tmp_path, caplog):
    """Where no lock can be had an export is written all the same, and a warning says it."""

    def none(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("fcntl.flock", none)
    async with FakeIef(30) as fake:
        await Export("a", "s").run(fake, tmp_path)

    assert "this file system has no locks" in caplog.text
    assert [tmp_path / "a"] == list(tmp_path.iterdir())


def test_a_lock_that_nobody_knows_any_more_is_free(tmp_path):
    """What ended without a word, as in a loop that was closed, holds nothing."""
    hold = _writing.Hold()
    hold.take(tmp_path / "a", ConfigurationError)
    del hold

    assert [] == list(tmp_path.iterdir())


async def test_a_lock_that_can_not_be_made_is_an_error_of_the_path(tmp_path):
    """The error names what was to be written, and no lock of which the caller knows nothing."""
    path = tmp_path / "no" / "a"
    async with FakeIef(3) as fake, session_with(fake) as ief:
        with pytest.raises(FileNotFoundError) as caught:
            await write_ndjson(ief.iter_pods(fake.deployment_ids), path)

    assert str(path) == caught.value.filename
