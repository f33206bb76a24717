"""What a server says never steers a terminal: every door of the command, every character."""

import json
import os
import pty
import subprocess
import sys

import pytest
from test_cli_output import fake, run  # noqa: F401  fixtures
from test_texts import STEERS

from ief_async._file_formats import FILE_FORMATS
from ief_async.cli._arguments import FORMATS
from ief_async.testing import Fault

pytestmark = pytest.mark.once  # starts processes

WHOLE = sorted(one for one in STEERS if not "\ud800" <= one <= "\udfff")
HOSTILE = "".join(WHOLE)
TEXTS = {
    "name",
    "description",
    "reason",
    "message",
    "state",
    "os_name",
    "arch",
    "image_url",
    "tags",
}
TITLE = "\x1b]0;owned\x07\x9b2J\u202egnp.exe\u2066"  # sets a title, clears, turns the direction
NOT_SHOWN = {name for name, form in FILE_FORMATS.items() if not form.for_terminal}
DOORS = {
    **{form: ("-o", form) for form in FORMATS if form not in NOT_SHOWN},
    "columns": ("-o", "tsv", "--columns", "name,description,configs,containers"),
    "filter": ("-o", "ndjson", "--name", "*"),
    "query": ("-o", "json", "--query", "[].{a: name, b: reason}"),
    "query-lines": ("-o", "ndjson", "--query", "[name, reason]"),
    "query-tsv": ("-o", "tsv", "--query", "[name, reason]"),
}


def hostile_rows(body):
    """Put hostile texts into the free texts of a page's rows."""
    document = json.loads(body)

    def changed(value, name=""):
        if isinstance(value, dict):
            return {key: changed(one, key) for key, one in value.items()}
        if isinstance(value, list):
            return [changed(one, name) for one in value]
        hostile = isinstance(value, str) and name in TEXTS
        # and half of a surrogate pair, which is no character at all
        return f"a{HOSTILE}b\ud800中{TITLE}" if hostile else value

    return json.dumps(changed(document)).encode()


def steering(data, but="\n"):
    """Return what of an output would steer a terminal."""
    return {*data.decode()} & STEERS - {*but}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["pods", "nodes"])
def test_no_row_steers_the_terminal(run, fake, name, door):  # noqa: F811  fixtures
    """Names, reasons and descriptions are shown escaped in every format of every list."""
    if name != "pods" and door in {"columns", "filter"}:
        return  # options of pods alone
    fake.intercept(lambda _: Fault.edit(hostile_rows))
    code, out, err = run(name, *DOORS[door])

    assert (0, "") == (code, err)
    assert out
    assert set() == steering(out, "\n\t" if "tsv" in DOORS[door] else "\n")
    if door in {"json", "ndjson"}:
        rows = json.loads(out) if door == "json" else map(json.loads, out.splitlines())
        assert any(
            HOSTILE in text for row in rows for text in row.values() if isinstance(text, str)
        )


REFUSALS = {
    "message": Fault.status(403, error_msg=f"no {HOSTILE}{TITLE}"),
    "code": Fault.status(403, error_code=f"E{TITLE}{HOSTILE}"),
    "html": Fault.body(f"<html>{TITLE}{HOSTILE}".encode(), status=403),
    "request-id": Fault.raw(
        b"HTTP/1.1 403 No\r\nX-Request-Id: a\x9b2J\xe2\x80\xae\xc2\x9b\r\nContent-Length: 0\r\n\r\n"
    ),
    "body-request-id": Fault.body(
        json.dumps({"error_msg": "no", "request_id": TITLE}).encode(), status=403
    ),
    "no-http": Fault.raw(f"HTTP/1.1 {TITLE}\r\n\r\n".encode()),
    "bad-header": Fault.raw(f"HTTP/1.1 200 OK\r\nX {TITLE}: {TITLE}\r\n\r\n".encode()),
    "encoding": Fault.raw(
        "HTTP/1.1 200 OK\r\nContent-Encoding: a\x9b2J\u202e\r\nContent-Length: 2\r\n\r\n{}".encode()
    ),
    "not-json": Fault.body(f"<html>{TITLE}{HOSTILE}".encode()),
    "field": Fault.body(
        json.dumps({"count": 1, "pods": [{"id": TITLE, "containers": 7}]}).encode()
    ),
    "row-id": Fault.body(json.dumps({"count": 1, "pods": [{"id": {TITLE: 1}}]}).encode()),
    "deployment-id": Fault.body(json.dumps({"count": 1, "deployments": [{"id": TITLE}]}).encode()),
    "error-200": Fault.body(json.dumps({"error_code": TITLE, "error_msg": HOSTILE}).encode()),
    "unknown-field": Fault.edit(
        lambda body: body.replace(b'"name"', json.dumps(TITLE).encode() + b':1,"name"')
    ),
}


@pytest.mark.parametrize(("on_error", "verbose"), [("raise", ""), ("collect", "-vv")])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_no_refusal_steers_the_terminal(run, fake, refusal, verbose, on_error):  # noqa: F811  fixtures
    """Error lines, notes and log lines show what a server says escaped, wherever it says it."""
    fake.intercept(
        lambda seen: (
            REFUSALS[refusal]
            if seen.path.endswith("/deployments") == (refusal == "deployment-id")
            else None
        )
    )
    ids = [] if refusal == "deployment-id" else ["--deployment-id", fake.deployment_ids[0]]
    code, out, err = run(*filter(None, ["pods", *ids, "--on-error", on_error, verbose]))

    assert code or refusal == "unknown-field"
    assert set() == steering(out) | steering(err.encode())
    assert code == 0 or err


def test_lookup_of_several_projects_steers_no_terminal(run, fake, monkeypatch):  # noqa: F811  fixtures
    """The names of projects that IAM lists are shown escaped."""
    fake.projects = [{"id": f"{at}" * 32, "name": "cn-north-4", "x": 1} for at in "ab"]
    monkeypatch.delenv("HUAWEICLOUD_SDK_PROJECT_ID", raising=False)
    evil = json.dumps({"projects": [{"id": f"{at}{TITLE}", "name": TITLE} for at in "ab"]})
    fake.intercept(
        lambda seen: Fault.body(evil.encode()) if seen.path.endswith("/projects") else None
    )
    code, _, err = run("pods", "--region", fake.region, "--endpoint", fake.endpoint)

    assert code
    assert set() == steering(err.encode())


@pytest.mark.parametrize("form", ["table", "tsv", "json", "ndjson"])
def test_real_terminal_is_not_steered(fake, form):  # noqa: F811  a fixture
    """On a terminal nothing of the server's arrives that sets its title, clears or turns it."""
    fake.intercept(lambda _: Fault.edit(hostile_rows))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ief_async", "pods", "-o", form],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    ) as running:
        os.close(theirs)
        seen = b""
        while True:
            try:
                data = os.read(ours, 65_536)
            except OSError:  # as Linux ends it
                break
            if not data:
                break
            seen += data
        assert 0 == running.wait()
    os.close(ours)

    shown = seen.replace(b"\r\x1b[K", b"").replace(b"\r\n", b"\n").decode()
    assert "gnp.exe" in shown or form == "table"
    assert set() == {*shown} & STEERS - {"\n", "\t"}
