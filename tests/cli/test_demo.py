"""The command, as a user runs it."""

import json
import subprocess
import sys

import pytest

from ief_async import ServerError, cli
from ief_async._paging.shape import requests_for
from ief_async.testing import FakeIef

pytestmark = pytest.mark.once  # starts processes


def command(*arguments):
    """Run the command in a process of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "ief_async", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )


def test_demo_scans_a_fleet_and_says_so():
    """The demo prints pods by state and what it took: a login, one page of deployments, a scan."""
    done = command("demo", "--pods", "1500", "--deployments", "20", "--latency", "0")

    lines = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines() if line[0] != "-")
    assert (0, "") == (done.returncode, done.stderr)
    assert ("1,500", "1,500", "18", "0") == tuple(
        lines[name] for name in ("all pods", "distinct ids", "requests", "retries")
    )
    assert "RUNNING" in lines


def test_demo_prints_one_json_object():
    """With --json stdout is one object with the figures."""
    done = command("demo", "--pods", "300", "--latency", "0", "--json")

    result = json.loads(done.stdout)
    assert {"pods", "distinct", "requests", "retries", "seconds"} <= result.keys()
    assert (300, 300, 0) == (result["pods"], result["distinct"], done.returncode)


def test_demo_survives_faults():
    """With a tenth of the requests failing, every pod comes exactly once all the same."""
    done = command("demo", "--pods", "3000", "--latency", "0", "--faults", "0.1", "--json")

    result = json.loads(done.stdout)
    assert (0, 3000, 3000) == (done.returncode, result["pods"], result["distinct"])
    login_and_deployments = 1 + requests_for(200, 100)
    scan = requests_for(1500, 100) * 2
    assert result["requests"] == login_and_deployments + scan + result["retries"]
    assert result["retries"] > 0


def test_demo_of_an_empty_fleet_is_whole():
    """No pods are no failure."""
    assert 0 == command("demo", "--pods", "0", "--latency", "0", "--json").returncode


def test_login_that_fails_is_a_line_and_exit_code_5():
    """A login that fails says why on stderr, without a traceback, and exits with 5."""
    done = command("demo", "--pods", "200", "--latency", "0", "--faults", "1")

    assert (5, "") == (done.returncode, done.stdout)
    assert "ief-async: No credentials obtained: POST /v3/auth/tokens was " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("scan",),
        ("demo", "--pods", "-1"),
        ("demo", "--faults", "1.5"),
        ("demo", "--latency", "inf"),
        ("demo", "--latency", "nan"),
        ("demo", "--deployments", "0"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    """Wrong arguments are said on stderr with the usage, and the exit code is 2."""
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)

    assert "usage: ief-async" in capsys.readouterr().err


def test_wrong_scan_is_exit_code_1(capsys, monkeypatch):
    """A scan that does not bring as many pods as the fleet holds is no success."""
    fleet = [{"id": f"p{at % 8}", "deployment_id": "d"} for at in range(9)]
    monkeypatch.setattr("ief_async.testing.FakeIef", lambda *_, **__: FakeIef(fleet))

    assert 1 == cli.main(["demo", "--json"])
    assert {"pods": 8, "distinct": 8, "expected": 9}.items() <= (
        json.loads(capsys.readouterr().out).items()
    )


def test_interrupt_is_exit_code_130(capsys, monkeypatch):
    """Control-C ends the demo with one line and 130."""

    def interrupted(coroutine):
        coroutine.close()
        raise KeyboardInterrupt

    monkeypatch.setattr("asyncio.run", interrupted)

    assert 130 == cli.main(["demo"])
    assert "ief-async: interrupted\n" == capsys.readouterr().err


def test_notes_of_an_error_are_printed(capsys, monkeypatch):
    """The place of an error, which stands in its notes, is printed below it."""

    def failing(coroutine):
        coroutine.close()
        error = ServerError("no")
        error.add_note("In batch 0.")
        raise error

    monkeypatch.setattr("asyncio.run", failing)

    assert 1 == cli.main(["demo"])
    assert "ief-async: no\nIn batch 0.\n" == capsys.readouterr().err
