"""The command in a process of its own: signals, pipes, terminals, shells."""

import fcntl
import json
import os
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
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  a shell's background job ignores it
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
