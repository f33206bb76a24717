"""The command in a process of its own: signals, pipes, terminals, shells."""

import fcntl
import json
import os
import random
import resource
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from ief_async.testing import FakeIef

pytestmark = pytest.mark.once  # starts processes

COMMAND = [sys.executable, "-W", "error", "-m", "ief_async"]


@pytest.fixture
def fake(monkeypatch):
    """Give a slow fleet to which the official variables lead."""
    with FakeIef(1_000, deployments=10, latency=0.05) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_export_prints_the_line_that_goes_on(fake, tmp_path, ended_by):
    """After a signal it is 130, and the line on stderr makes the export whole."""
    to, saved = tmp_path / "pods.ndjson", tmp_path / "a checkpoint"
    arguments = ["pods", "--file", str(to), "--checkpoint", str(saved), "--page-size", "20"]
    with subprocess.Popen(
        [*COMMAND, *arguments, "--concurrency", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding,  # noqa: PLW1509  likewise
    ) as running:
        while len(fake.requests) < 10:
            time.sleep(0.01)
        running.send_signal(ended_by)
        out, err = running.communicate(timeout=30)

    assert (130, "", False) == (running.returncode, out, to.exists())
    line = shlex.split(err.splitlines()[-1])
    assert ["python", "-m", "ief_async"] == line[:3]
    done = subprocess.run([sys.executable, *line[1:]], check=False, capture_output=True, text=True)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    ids = [json.loads(text)["id"] for text in to.read_text().splitlines()]
    assert sorted(pod["id"] for pod in fake.pods) == sorted(ids)
    assert not saved.exists()


@pytest.mark.usefixtures("fake")
def test_head_ends_it_quietly():
    """A reader that has enough ends it with 0, and nothing on stderr."""
    with subprocess.Popen(
        [*COMMAND, "pods", "--page-size", "20", "--concurrency", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        running.stdout.readline()
        running.stdout.close()
        assert b"" == running.stderr.read()

    assert 0 == running.returncode


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
@pytest.mark.usefixtures("fake")
def test_bar_on_a_terminal(width, terminal, tmp_path):
    """A terminal shows pods, per cent, rate and time left, in one line that is cleared."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with (
        (tmp_path / "out").open("wb") as out,
        subprocess.Popen(
            [*COMMAND, "pods", "--page-size", "20", "--concurrency", "1"],
            stdout=out,
            stderr=slave,
            env={**os.environ, "TERM": terminal},
        ) as running,
    ):
        os.close(slave)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # its other end is closed
                break
            if not part:
                break
            shown += part
    os.close(master)

    text = shown.decode()
    assert 0 == running.returncode
    assert " of 1,000 (" in text
    assert "%), " in text
    assert "/s, " in text
    assert " left" in text
    assert text.endswith(("\x1b[2K", "\r\x1b[K"))  # nothing of it is left


@pytest.mark.parametrize(
    ("shell", "check"),
    [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["--no-execute"])],
)
def test_completion_is_a_script_of_its_shell(shell, check, tmp_path):
    """The shell itself finds nothing wrong in its completion."""
    if shutil.which(shell) is None:
        pytest.skip(f"this machine has no {shell}")
    script = tmp_path / "completion"
    script.write_bytes(subprocess.check_output([*COMMAND, "completion", shell]))

    subprocess.run([shutil.which(shell), *check, str(script)], check=True)


def test_bash_completes():
    """Commands, options and the choices of an option are completed."""
    script = subprocess.check_output([*COMMAND, "completion", "bash"], text=True)
    for words, found in (("po", "pods"), ("pods --dead", "--deadline"), ("pods -o pa", "parquet")):
        typed = ["ief-async", *words.split()]
        asked = f"COMP_WORDS=({' '.join(typed)}); COMP_CWORD={len(typed) - 1}; _ief_async"
        done = subprocess.check_output(
            ["bash", "-c", f'{script}\n{asked}; echo "${{COMPREPLY[@]}}"'],  # noqa: S607  as a user has it
            text=True,
        )
        assert found == done.strip()


@pytest.mark.usefixtures("fake")
def test_wrong_key_is_5_and_no_host_is_1(monkeypatch):
    """A refused key is 5; a host that is not there is 1; both say what to look at."""
    missing = subprocess.run(
        [*COMMAND, "pods", "--endpoint", "http://127.0.0.1:1", "--deadline", "1"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "wrong")
    refused = subprocess.run([*COMMAND, "pods"], check=False, capture_output=True, text=True)

    assert (1, "", 5, "") == (
        missing.returncode, missing.stdout, refused.returncode, refused.stdout,
    )  # fmt: skip
    assert "Check the access key" in refused.stderr
    assert "wrong" not in refused.stderr


# ---- what goes to a pipe -----------------------------------------------------------------------


@pytest.fixture
def fast(monkeypatch):
    """Give a fleet that answers at once, to which the official variables lead."""
    with FakeIef(1_200, deployments=6) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        yield fake


def is_full(pipe):
    """Tell whether a pipe takes no more for now."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return not poll.poll(0)


def heeding():
    """Let a process heed the signals that a shell's background job ignores."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def piped(arguments, *, blocks=True, end_after=None, signals=(signal.SIGTERM,), **variables):
    """Run the command into a small pipe; return its code, what was read of it, and its stderr.

    It is read once the pipe is full, and the signals are sent when so many bytes were read.
    """
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, blocks)
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
        preexec_fn=heeding,  # noqa: PLW1509  a shell's background job ignores some
    ) as running:
        while not is_full(writer) and running.poll() is None:
            time.sleep(0.001)
        os.close(writer)
        seen = bytearray()
        with open(reader, "rb", buffering=0) as file:  # noqa: PTH123  it has no path
            while some := file.read(3_000):
                seen += some
                if end_after is not None and len(seen) >= end_after:
                    end_after = None
                    for one in signals:
                        running.send_signal(one)
        return running.wait(), bytes(seen), running.stderr.read().decode()


def line_that_goes_on(err):
    """Return the arguments of the command that is printed last."""
    words = shlex.split(err.splitlines()[-1])
    assert ["python", "-m", "ief_async"] == words[:3]
    return words[3:]


@pytest.mark.parametrize(
    ("form", "unbuffered", "pipe"),
    [
        ("ndjson", "1", {"signals": [signal.SIGTERM]}),
        ("tsv", "1", {"signals": [signal.SIGINT, signal.SIGINT, signal.SIGTERM], "blocks": False}),
        ("ndjson", "", {"signals": [signal.SIGHUP], "blocks": False}),
    ],
    ids=["blocking", "interrupted often", "buffered"],
)
def test_ended_while_it_writes_it_goes_on_without_a_gap(fast, tmp_path, form, unbuffered, pipe):
    """Ended in the middle of lines, and gone on with as it says, it prints each pod once, whole."""
    moments = random.Random(repr(pipe))
    arguments = ["pods", "--checkpoint", str(tmp_path / "saved"), "-o", form, "--page-size", "100"]
    written, codes = b"", []
    while 0 not in codes:
        code, out, err = piped(
            arguments,
            end_after=moments.randint(1, 60_000) if len(codes) < 3 else None,
            PYTHONUNBUFFERED=unbuffered,
            **pipe,
        )
        codes.append(code)
        written += out
        if code:
            arguments = line_that_goes_on(err)

    lines = written.decode().splitlines()
    if form == "tsv":
        at = lines[0].split("\t").index("ID")
        ids = [line.split("\t")[at] for line in lines[1:]]
    else:
        ids = [json.loads(line)["id"] for line in lines]
    assert [130, 130, 130, 0] == codes
    assert sorted(pod["id"] for pod in fast.pods) == sorted(ids)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("form", "unbuffered"),
    [("json", "1"), ("wide", ""), ("name", "1"), ("parquet", "1"), ("arrow", "")],
)
def test_a_pipe_that_does_not_block_gets_all(fast, tmp_path, form, unbuffered):
    """Each format is whole where standard output takes no more for a while."""
    code, out, err = piped(["pods", "-o", form], blocks=False, PYTHONUNBUFFERED=unbuffered)

    assert (0, "") == (code, err)
    if form in {"parquet", "arrow"}:
        pa = pytest.importorskip("pyarrow")
        path = tmp_path / "a"
        path.write_bytes(out)
        table = (
            pytest.importorskip("pyarrow.parquet").read_table(path)
            if form == "parquet"
            else pa.ipc.open_stream(out).read_all()
        )
        found = set(table["id"].to_pylist())
    elif form == "json":
        found = {pod["id"] for pod in json.loads(out)}
    else:
        found = {word for line in out.decode().splitlines() for word in line.split()}
    assert {pod["id"] for pod in fast.pods} <= found


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments", [["completion", "bash"], ["pods", "--help"]], ids=lambda words: words[0]
)
def test_what_is_no_data_gets_through_too(arguments, unbuffered):
    """Help and completion are whole in a pipe that is full for a while, and does not block."""
    whole = subprocess.check_output([*COMMAND, *arguments])

    assert (0, whole, "") == piped(arguments, blocks=False, PYTHONUNBUFFERED=unbuffered)


def test_a_full_disk_leaves_whole_lines(fast, tmp_path):
    """A file that grows no more ends in a whole line, and going on makes it whole."""
    to, saved = tmp_path / "pods", tmp_path / "saved"
    arguments = ["pods", "--checkpoint", str(saved), "--page-size", "100"]
    with to.open("ab") as file:
        done = subprocess.run(
            [*COMMAND, *arguments],
            check=False,
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_001, 500_001)),
        )
        assert 1 == done.returncode
        assert "File too large" in done.stderr
        assert to.read_bytes().endswith(b"}\n")
        subprocess.run([*COMMAND, *line_that_goes_on(done.stderr)], check=True, stdout=file)

    ids = [json.loads(line)["id"] for line in to.read_text().splitlines()]
    assert sorted(pod["id"] for pod in fast.pods) == sorted(ids)


def test_two_commands_do_not_share_a_checkpoint(fast, tmp_path):
    """The second is refused, even with --restart; the first goes on, and is whole."""
    saved = tmp_path / "saved"
    arguments = ["pods", "--checkpoint", str(saved), "--page-size", "100"]
    with subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE) as running:
        first = running.stdout.readline()
        before = len(fast.requests)
        for more in ([], ["--restart"], ["--file", str(tmp_path / "a.ndjson")]):
            other = subprocess.run(
                [*COMMAND, *arguments, *more], check=False, capture_output=True, text=True
            )
            assert (1, "") == (other.returncode, other.stdout)
            assert f"{saved} is in use by another" in other.stderr
            assert "to go on" not in other.stderr
        written = first + running.stdout.read()

    assert 0 == running.returncode
    assert before <= len(fast.requests)
    ids = [json.loads(line)["id"] for line in written.splitlines()]
    assert sorted(pod["id"] for pod in fast.pods) == sorted(ids)
    assert [] == list(tmp_path.iterdir())


def test_log_lines_stand_between_rows(fast):
    """Where both go to one pipe, by 2>&1, no log line stands in the midst of a row."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with subprocess.Popen(
        [*COMMAND, "pods", "-vv", "--page-size", "100"], stdout=writer, stderr=writer
    ) as running:
        while not is_full(writer) and running.poll() is None:
            time.sleep(0.001)
        os.close(writer)
        with open(reader, "rb") as file:  # noqa: PTH123  it has no path
            lines = file.read().decode().splitlines()

    rows = [line for line in lines if line.startswith("{")]
    assert 0 == running.returncode
    assert sorted(pod["id"] for pod in fast.pods) == sorted(json.loads(row)["id"] for row in rows)
    assert all(" DEBUG " in line or " INFO " in line for line in {*lines} - {*rows})
    assert len(rows) < len(lines)


@pytest.mark.usefixtures("fake")
def test_a_reader_that_has_enough_is_told_what_is_kept(tmp_path):
    """With a checkpoint it is said that what was not read counts as done."""
    saved = tmp_path / "saved"
    with subprocess.Popen(
        [*COMMAND, "pods", "--page-size", "20", "--concurrency", "1", "--checkpoint", str(saved)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        running.stdout.readline()
        running.stdout.close()
        told = running.stderr.read().decode()

    assert 0 == running.returncode
    assert f"what it left unread is done for {saved}" in told
    assert saved.exists()


LATE = """
import atexit, os, signal, sys
from ief_async import cli

before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
atexit.register(os.kill, os.getpid(), signal.SIGTERM)  # runs after what the command registers
code = cli.main(["count", "-o", "json"])
assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
sys.exit(code)
"""


@pytest.mark.usefixtures("fast")
def test_a_request_to_end_that_comes_too_late_changes_nothing():
    """What is whole ends as such, and who called the command has the signals back."""
    done = subprocess.run([sys.executable, "-c", LATE], check=False, capture_output=True, text=True)

    assert (0, "", 1_200) == (done.returncode, done.stderr, json.loads(done.stdout)["total"])


def test_a_signal_that_is_ignored_stays_ignored(fake):
    """A job in the background, whose shell has it ignore Ctrl-C, is not ended by it."""
    with subprocess.Popen(
        [*COMMAND, "pods", "-o", "name", "--page-size", "100"],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # noqa: PLW1509  as such a shell does
    ) as running:
        first = running.stdout.readline()
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()

    assert (0, len(fake.pods)) == (running.returncode, len((first + rest).splitlines()))
