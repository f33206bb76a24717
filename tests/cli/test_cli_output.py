"""What the command prints: formats, columns, filters, queries, progress."""

import io
import json
import logging
import os
import re
import sys

import attrs
import pytest

from ief_async import Pod, cli
from ief_async._endpoints import LISTINGS
from ief_async.cli import _output, _progress
from ief_async.testing import FakeIef, Fault


@pytest.fixture(autouse=True)
def _own_log():
    """Give other tests back the logger that the command has set up."""
    log = logging.getLogger("ief_async")
    before = log.handlers, log.propagate, log.level
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


@pytest.fixture
def fake(monkeypatch):
    """Give a running fleet to which the official variables lead."""
    with FakeIef(250, deployments=5) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def run(capfdbinary):
    """Give a function that runs the command, and returns its code, stdout and stderr."""

    def run(*arguments):
        try:
            code = cli.main(arguments)
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        shown = capfdbinary.readouterr()
        return code, shown.out, shown.err.decode()

    return run


@pytest.fixture
def typed(monkeypatch):
    """Give a function that puts text on standard input."""

    def typed(text):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))

    return typed


def ids_in(out):
    """Return the ids of NDJSON."""
    return {json.loads(line)["id"] for line in out.splitlines()}


# ---- formats -----------------------------------------------------------------------------------


def test_piped_it_is_ndjson_of_whole_pods(run, fake):
    """Without a terminal each pod is a JSON document in a line, with all of its fields."""
    code, out, err = run("pods")

    assert (0, "") == (code, err)
    assert {pod["id"] for pod in fake.pods} == ids_in(out)
    assert {field.name for field in attrs.fields(Pod)} == json.loads(out.splitlines()[0]).keys()


def test_json_is_one_array(run, fake):
    """Of json stdout is one document."""
    code, out, err = run("pods", "-o", "json")

    assert (0, "", len(fake.pods)) == (code, err, len(json.loads(out)))


def test_names_are_ids_alone(run, fake):
    """Of name a line is an id, to be read by another command."""
    _, out, _ = run("pods", "-o", "name")

    assert {pod["id"] for pod in fake.pods} == set(out.decode().split())


def test_tsv_has_a_title_and_as_many_tabs_in_each_line(run, fake):
    """Of tsv the first line names the columns, and times are times."""
    _, out, _ = run("pods", "-o", "tsv")

    lines = [line.split("\t") for line in out.decode().splitlines()]
    assert len(fake.pods) + 1 == len(lines)
    assert {len(lines[0])} == set(map(len, lines))
    assert "CREATED_AT" in lines[0]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
@pytest.mark.parametrize("to", ["stdout", "file"])
def test_tables_of_arrow(run, fake, tmp_path, form, to):
    """Parquet and Arrow go to a pipe or a file, with every pod."""
    pa = pytest.importorskip("pyarrow")
    path = tmp_path / f"pods.{form}"

    if to == "file":
        code, out, err = run("pods", "--file", str(path))
        assert (0, b"", "") == (code, out, err)
    else:
        code, out, err = run("pods", "-o", form)
        assert (0, "") == (code, err)
        path.write_bytes(out)

    if form == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
    else:
        opened = pa.ipc.open_file if to == "file" else pa.ipc.open_stream
        table = opened(path.read_bytes()).read_all()
    assert {pod["id"] for pod in fake.pods} == set(table.column("id").to_pylist())


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("form", ["table", "wide", "json", "ndjson", "tsv", "name"])
@pytest.mark.usefixtures("fake")
def test_every_list_has_every_text_format(run, name, form):
    """All lists are read, and shown in each format."""
    code, out, err = run(name, "-o", form)

    assert (0, "") == (code, err)
    assert out


@pytest.mark.usefixtures("fake")
def test_table_is_aligned(run):
    """Columns of a table begin under their titles."""
    _, out, _ = run("pods", "-o", "table")

    lines = out.decode().splitlines()
    at = lines[0].index("NODE")
    assert lines[0].startswith("NAME ")
    assert {"  "} == {line[at - 2 : at] for line in lines}


@pytest.mark.usefixtures("fake")
def test_an_empty_table_says_so_on_stderr(run):
    """A table without rows is a line on stderr and nothing on stdout; with -q it is nothing."""
    assert (0, b"", "ief-async: no pods found\n") == run(
        "pods", "-o", "table", "--deployment-id", "none"
    )
    assert (0, b"", "") == run("pods", "-o", "table", "--deployment-id", "none", "-q")
    assert (0, b"[]\n", "") == run("pods", "-o", "json", "--deployment-id", "none")


@pytest.mark.usefixtures("fake")
def test_a_filter_that_keeps_nothing_is_an_empty_table(run):
    """Pods that were read, and not wanted, are none for the user."""
    assert (0, b"", "ief-async: no pods found\n") == run("pods", "-o", "table", "--state", "NONE")


# ---- what is wanted ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["ndjson", "json"])
def test_filters(run, fake, form):
    """--state (any case, repeatable) and --name keep those pods, and add no columns."""
    code, out, _ = run(
        "pods", "--state", "running", "--state", "FAILED", "--name", "app-1-*",
        "--columns", "id", "-o", form,
    )  # fmt: skip

    wanted = [
        {"id": pod["id"]}
        for pod in fake.pods
        if pod["state"] in {"RUNNING", "FAILED"} and pod["name"].startswith("app-1-")
    ]
    found = json.loads(out) if form == "json" else [json.loads(line) for line in out.splitlines()]
    assert 0 == code
    assert wanted
    assert sorted(map(str, wanted)) == sorted(map(str, found))


@pytest.mark.usefixtures("fake")
def test_columns_in_their_order(run):
    """--columns are the keys or titles, in the order given, each once."""
    _, ndjson, _ = run("pods", "--columns", "state,id, state")
    _, tsv, _ = run("pods", "--columns", "state,id", "-o", "tsv")

    assert ["state", "id"] == list(json.loads(ndjson.splitlines()[0]))
    assert b"STATE\tID" == tsv.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--columns", "id,size"), "--columns has size; there are id, name,"),
        (("--columns", ","), "--columns has no name; there are id, name,"),
        (("--query", "[?"), "--query is not valid JMESPath:"),
        (("--query", "id", "-o", "table"), "--query goes with -o json, ndjson or tsv"),
        (("--file", "pods.csv"), "--file must end in one of .parquet"),
        (("--checkpoint", "x", "-o", "json"), "--checkpoint goes with --file, or with -o ndjson"),
        (("--restart",), "--restart goes with --checkpoint"),
        (("--node-id", "a", "--group-id", "b"), "not several of them"),
        (("--columns", "id", "--state", "RUNNING", "--file", "x.ndjson"), "has to have state and"),
        (("--batch-size", "0"), "must be from 1 to 1000, got 0"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_sent(run, fake, arguments, said):
    """What can't work is exit code 2 with what to do, in two lines, and no request."""
    code, out, err = run("pods", *arguments)

    assert (2, b"", 0) == (code, out, len(fake.requests))
    assert err.startswith("usage: ief-async pods [option ...]\nief-async pods: error: ")
    assert said in err


def test_ids_on_standard_input(run, fake, typed):
    """Lines, comments, blank lines and JSON documents with an id are read as ids."""
    first, second = fake.deployment_ids[:2]
    typed(f'# mine\n\n  {first}  \n{{"id": "{second}", "name": "x"}}\n'.encode())

    code, out, _ = run("pods", "--deployment-id", "-")

    wanted = {pod["id"] for pod in fake.pods if pod["deployment_id"] in {first, second}}
    assert (0, wanted) == (code, ids_in(out))


def test_no_ids_on_standard_input_are_no_pods(run, fake, typed):
    """An empty input is never the whole fleet."""
    typed(b"")

    assert (0, b"", "") == run("pods", "--deployment-id", "-")
    assert not [one for one in fake.requests if "pods" in one.path]


@pytest.mark.parametrize("text", [b'{"name": "x"}\n', b'{"id": null}\n', b"{\n"])
@pytest.mark.usefixtures("fake")
def test_a_document_without_an_id_is_wrong_usage(run, typed, text):
    """A line on standard input that has no id is said, and ends it."""
    typed(text)

    code, _, err = run("pods", "--deployment-id", "-")

    assert 2 == code
    assert "standard input has a line without an id: {" in err


@pytest.mark.usefixtures("fake")
def test_bytes_on_standard_input_are_no_traceback(run, typed):
    """What is no UTF-8 is an id that nobody has."""
    typed(b"\xff\xfe\n")

    code, _, err = run("pods", "--deployment-id", "-")

    assert code in {0, 2}
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "command", ["pods", *(name for name in LISTINGS if "name" in LISTINGS[name].filters)]
)
def test_max_items_of_an_empty_list_comes_to_an_end(command, run, monkeypatch):
    """Fewer rows than --max-items asks for, or none, end the command."""
    with FakeIef(0) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        which = () if command == "pods" else ("--name", "nobodys")
        code, out, err = run(command, "--max-items", "10", *which)

    assert (0, b"", "") == (code, out, err)


def test_max_items_is_whole(run, fake):
    """Who asks for three pods and gets them has all that was asked for."""
    code, out, err = run("pods", "--max-items", "3")

    assert (0, "", 3) == (code, err, len(out.splitlines()))
    assert len(fake.pods) > 3


# ---- queries -----------------------------------------------------------------------------------


def test_query(run, fake):
    """--query is applied to the array of json, and to each row of ndjson and tsv."""
    pytest.importorskip("jmespath")

    _, whole, _ = run("pods", "-o", "json", "--query", "length(@)")
    _, rows, _ = run("pods", "-o", "ndjson", "--query", "{id: id, on: node_id}")
    _, tabs, _ = run("pods", "-o", "tsv", "--query", "[id, state]")
    _, some, _ = run("pods", "-o", "ndjson", "--query", "reason")

    assert len(fake.pods) == json.loads(whole)
    assert {"id", "on"} == json.loads(rows.splitlines()[0]).keys()
    assert {2} == {len(line.split(b"\t")) for line in tabs.splitlines()}
    assert b"null" not in some.splitlines()


def test_query_without_jmespath_says_what_to_install(run, fake, monkeypatch):
    """Where jmespath is missing the usage error names the extra."""
    monkeypatch.setitem(sys.modules, "jmespath", None)

    code, _, err = run("pods", "--query", "id")

    assert (2, 0) == (code, len(fake.requests))
    assert "pip install 'ief-async[cli]'" in err


# ---- tables as such ----------------------------------------------------------------------------


def table(rows, width=None, *, coloured=False):
    """Return a table of names and states."""
    file = io.BytesIO()
    columns = [_output.Column("NAME", "name"), _output.Column("STATE", "state")]
    shown = _output.Table(file, columns, width, coloured)
    shown.write(rows)
    shown.close()
    return file.getvalue().decode()


def test_chinese_names_are_aligned():
    """A Chinese character takes two cells, and the next column stands in line."""
    lines = table([{"name": "北京-节点", "state": "A"}, {"name": "x", "state": "B"}]).splitlines()

    assert {11} == {_output.cells_of(line[: line.rindex(line.split()[-1])]) for line in lines}


def test_control_characters_move_no_cursor():
    """A name with escapes and line breaks is printed in one line, without them."""
    assert "\x1b" not in table([{"name": "a\x1b[2Jb\nc\td", "state": "A"}])
    assert 2 == table([{"name": "a\x1b[2Jb\nc\rd", "state": "A"}]).count("\n")


@pytest.mark.parametrize("width", [16, 20, 40])
def test_a_narrow_terminal_cuts_the_widest(width):
    """Lines fit the terminal, and what was cut ends in an ellipsis."""
    lines = table([{"name": "北" * 40, "state": "RUNNING"}], width).splitlines()

    assert all(_output.cells_of(line) <= width for line in lines)
    assert "…" in lines[1]


def test_a_large_table_streams():
    """A table is written as rows come, after the first hundred, not at its end."""
    file = io.BytesIO()
    shown = _output.Table(file, [_output.Column("NAME", "name")], None, coloured=False)

    for at in range(1_000):
        shown.write([{"name": f"pod-{at}-{row}"} for row in range(100)])
        assert (at + 1) * 100 + 1 == file.getvalue().count(b"\n") if at % 250 == 0 else True
        assert not shown._held


def test_states_are_coloured_where_colours_are():
    """A failed pod is red on a terminal of colours, and in none of the others."""
    rows = [{"name": "a", "state": "FAILED"}]

    assert "\x1b[31mFAILED" in table(rows, coloured=True)
    assert "\x1b" not in table(rows)


@pytest.mark.parametrize(
    ("variables", "plain"),
    [({}, False), ({"NO_COLOR": "1"}, True), ({"NO_COLOR": ""}, False), ({"TERM": "dumb"}, True)],
)
def test_no_color_and_dumb_terminals_are_honoured(monkeypatch, variables, plain):
    """NO_COLOR that is not empty, and TERM=dumb, take the colours away."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    terminal = io.StringIO()
    terminal.isatty = lambda: True

    assert plain == _output.is_plain(terminal)
    assert _output.is_plain(io.StringIO())


# ---- progress ----------------------------------------------------------------------------------


def test_lines_of_progress_where_stderr_is_a_pipe(run, fake, monkeypatch):
    """Each ten seconds (here: sooner) a line says how many pods, per cent, rate and time left."""
    monkeypatch.setattr(_progress.Log, "every", 0.01)
    fake.latency = 0.1

    code, out, err = run("pods", "--page-size", "25", "--concurrency", "1", "-o", "name")

    assert (0, 250) == (code, len(out.splitlines()))
    assert 10.0 == _progress.REPEATED
    pattern = r"(?m)^ief-async: \d+ of 250 \(\d+%\), [\d,]+/s, \d+:\d\d left$"
    assert re.search(pattern, err)


def test_quiet_shows_no_progress(run, fake, monkeypatch):
    """With -q stderr is empty."""
    monkeypatch.setattr(_progress.Log, "every", 0.01)
    fake.latency = 0.05

    assert "" == run("pods", "-q")[2]


@pytest.mark.usefixtures("fake")
def test_verbose_is_a_line_a_scan_and_very_verbose_one_a_request(run):
    """-v logs scans on stderr, -vv each request, and data stays alone on stdout."""
    _, out, some = run("pods", "-v")
    _, _, more = run("pods", "-vv")

    assert 250 == len(ids_in(out))
    assert " INFO " in some
    assert " DEBUG " not in some
    assert " DEBUG " in more


def test_help_fits_80_columns(run, monkeypatch):
    """The help of each command has no line over 80 cells."""
    monkeypatch.setenv("COLUMNS", "80")
    names = (*LISTINGS, "count", "demo", "fake-server", "completion")
    for arguments in [(), *((name,) for name in names)]:
        code, out, _ = run(*arguments, "--help")

        assert 0 == code
        assert not [line for line in out.decode().splitlines() if len(line) > 80]


def test_version(run):
    """--version is a line on stdout."""
    code, out, err = run("--version")

    assert (0, "") == (code, err)
    assert out.startswith(b"ief-async ")


def test_count(run, fake):
    """Count says how many pods there are, for reading or as JSON."""
    _, text, _ = run("count")
    _, document, _ = run("count", "-o", "json")

    assert str(len(fake.pods)) in text.decode().splitlines()[0].split()
    assert len(fake.pods) == json.loads(document)["total"]


def test_width_of_the_terminal_is_heeded(monkeypatch):
    """The terminal's width is asked for each time."""
    monkeypatch.setenv("COLUMNS", "123")

    assert 123 == _output.terminal_width()
    assert os.environ["COLUMNS"] == "123"


# ---- checkpoints -------------------------------------------------------------------------------


def test_a_batch_that_failed_is_read_by_the_same_again(run, fake, tmp_path):
    """With --on-error collect what failed stays in the checkpoint, and comes when it is resumed."""
    saved = tmp_path / "saved"
    arguments = ("pods", "--checkpoint", str(saved), "--on-error", "collect", "--batch-size", "1")
    fake.script(None, None, *[Fault.status(404)])

    code, some, err = run(*arguments, "--concurrency", "1")
    assert (3, True) == (code, f"is kept in {saved}; to go on, with its output below" in err)
    code, rest, _ = run(*arguments)

    assert 0 == code
    lines = [json.loads(line)["id"] for line in (some + rest).splitlines()]
    assert sorted(pod["id"] for pod in fake.pods) == sorted(lines)
    assert len(some.splitlines()) < len(lines)
    assert [] == list(tmp_path.iterdir())


def test_the_state_of_an_export_is_none_of_an_output(run, fake, tmp_path):
    """What an export keeps is not gone on with on standard output, and stays as it is."""
    saved, to = tmp_path / "saved", tmp_path / "pods.ndjson"
    arguments = ("pods", "--checkpoint", str(saved), "--page-size", "50", "--concurrency", "1")
    fake.script(*[None] * 3, Fault.status(404))
    assert 1 == run(*arguments, "--file", str(to))[0]
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}

    code, out, err = run(*arguments)

    assert (1, b"") == (code, out)
    assert f"{saved} is of an export to pods.ndjson: give its --file, or --restart" in err
    assert kept == {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert 0 == run(*arguments, "--file", str(to))[0]
    assert {pod["id"] for pod in fake.pods} == ids_in(to.read_bytes())
    assert [to] == list(tmp_path.iterdir())


def test_what_could_not_be_saved_is_said(run, fake, tmp_path, monkeypatch):
    """Where the disk is full when it ends, the line that goes on says that rows come twice."""
    saved = tmp_path / "saved"
    arguments = ("pods", "--checkpoint", str(saved), "--page-size", "50", "--concurrency", "1")

    def full(_):
        raise OSError(28, "No space left on device")

    fake.script(*[None] * 3, Fault.status(404))
    _, first, told = run(*arguments)
    assert "twice" not in told
    fake.script(*[None] * 2, Fault.status(404))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        _, second, told = run(*arguments)
    assert "with rows that come twice, as it could not be saved ([Errno 28]" in told
    code, third, _ = run(*arguments)

    assert 0 == code
    assert {pod["id"] for pod in fake.pods} == ids_in(first + third)
    assert ids_in(second) < ids_in(third)
    assert [] == list(tmp_path.iterdir())
