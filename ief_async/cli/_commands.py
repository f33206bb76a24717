"""What each command does: a coroutine that returns the exit code."""

import argparse
import asyncio
import fnmatch
import json
import os
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from ief_async._checkpoint import ScanCheckpoint
from ief_async._endpoints import Found
from ief_async._errors import CheckpointError, ConfigurationError, Failure
from ief_async._models import Deployment, Group, Instance, Node, Pod
from ief_async._policies import Limits
from ief_async._regions import known_region
from ief_async._scan import Page, ScanReport, Stream, engine_of
from ief_async._session import IefSession
from ief_async._structure import LineReader, narrowed, structure_of
from ief_async._texts import printable
from ief_async._worker import Worker
from ief_async._writing import Exact, Hold, put
from ief_async.cli._arguments import COMPLETIONS, LISTS, Exit
from ief_async.cli._demo import demo
from ief_async.cli._output import (
    COLUMNS,
    Array,
    Column,
    Lines,
    Table,
    Writer,
    as_text,
    dumped,
    fields_of,
    is_plain,
    show,
    stdout,
    tab_separated,
    terminal_width,
)
from ief_async.cli._progress import bar_of, shown

MODELS: dict[str, type] = {
    "pods": Pod,
    "deployments": Deployment,
    "nodes": Node,
    "groups": Group,
    "instances": Instance,
}
PAGE_SIZES = {"pods": 1000, "nodes": 1000}
SMALL_PAGE = 100
TOLD = 3  # failures that are told one by one
SAVED_PAGES = 20  # between two saves of what went to stdout
ENDINGS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
BINARY = ("parquet", "arrow")
GOES_ON = ("ndjson", "tsv", "name")  # on stdout, where what was written before stands above


class Usage(Exception):  # noqa: N818  it is none of the library's errors, but argparse's business
    """Arguments that do not go together."""


@attrs.define
class Outcome:
    """What is to be said of a command that did not end well.

    Attributes:
        saved: the file in which what is done is kept.
        to_go_on: what has to be done, besides the same command, to go on from there.
    """

    saved: str | None = None
    to_go_on: list[str] = attrs.field(factory=list)


class _Identified(msgspec.Struct):
    id: str


# ---- lists -------------------------------------------------------------------------------------


async def _list(arguments: argparse.Namespace, outcome: Outcome) -> int:
    name, model = arguments.command, MODELS[arguments.command]
    form = _form(arguments)
    query = _query(arguments, form)
    keep = _keep(arguments)
    fields = _fields(arguments, form, model, filtered=keep is not None)
    saved = _saved_at(arguments, form)
    if saved and not arguments.file:
        outcome.to_go_on.append("with its output below (>>) what was written")
    with Hold() as hold:
        begun = _begun(arguments, saved, hold)
        async with _session(arguments) as ief:
            stream = _stream(ief, arguments, fields, begun)
            bar, printed = bar_of(quiet=arguments.quiet), None
            if not arguments.file and form not in BINARY:
                out = stdout()
                writer = _writer(out, arguments, form, query, headed=begun is None)
                plain = form == "ndjson" and keep is query is None
                printed = _Printed(out, writer, keep, plain)
            try:
                async with shown(stream, bar):
                    if printed is None:
                        await _export(stream, arguments, form, keep)
                    else:
                        await _print(stream, printed, bar.clear, saved, outcome)
            except (ConfigurationError, CheckpointError):  # the same again would end the same way
                raise
            except BaseException:
                outcome.saved = saved
                raise
            report = stream.report
    skipped = _tell_skipped(name, report)
    if report.failures:
        say("partial: some batches failed, all others came", *told(report.failures))
        outcome.saved = saved
        return Exit.PARTIAL
    if printed is not None and printed.found_nothing and not arguments.quiet:
        say(f"no {name} found")
    if report.doubtful:
        batches = len(report.batches) + (len(report.ids.batches) if report.ids else 0)
        say(f"rows may be missing: {len(report.doubtful)} of {batches} batches moved too much")
        return Exit.DRIFT
    return Exit.PARTIAL if skipped else Exit.WHOLE


def _tell_skipped(name: str, report: ScanReport) -> bool:
    """Say how many items were skipped; tell whether any was."""
    if skipped := report.bad_items:
        say(f"partial: {skipped} of the {name} can't be read and were skipped, all others came")
    if missed := report.ids.bad_items if report.ids else 0:
        say(f"partial: {missed} of the deployments have no id, and their pods were skipped")
    return bool(skipped or missed)


def told(failures: Sequence[Failure]) -> list[str]:
    """Return a line for each of the first failures."""
    lines = [str(one.error) for one in failures[:TOLD]]
    more = len(failures) - len(lines)
    return [*lines, f"… and {more} more"] if more else lines


def say(*lines: str, prefix: str = "ief-async: ") -> None:
    """Print on stderr: stdout is for data. Nothing that a server said steers the terminal."""
    put(prefix + printable("\n".join(lines), lines=True) + "\n", sys.stderr)


def _form(arguments: argparse.Namespace) -> str:
    """Return the format: as asked for, as the file's name says, or what the terminal is for."""
    name = (arguments.file or "").removesuffix(".gz").removesuffix(".zst")
    by_name = ENDINGS.get(Path(name).suffix)
    form: str | None = arguments.output or by_name
    if arguments.file and form not in {*BINARY, "ndjson"}:
        message = f"--file takes {' '.join(ENDINGS)}, or -o {', '.join([*BINARY, 'ndjson'])}"
        raise Usage(message)
    if form in BINARY and not arguments.file and sys.stdout.isatty():
        message = f"-o {form} is nothing for a terminal: give --file, or a pipe"
        raise Usage(message)
    if form is None and arguments.query and sys.stdout.isatty():
        return "json"
    return form or ("table" if sys.stdout.isatty() else "ndjson")


def _query(arguments: argparse.Namespace, form: str) -> Callable[[Any], Any] | None:
    if arguments.query is None:
        return None
    if form not in {"json", "ndjson", "tsv"} or arguments.file:
        message = "--query goes with -o json, ndjson or tsv, on standard output"
        raise Usage(message)
    try:
        import jmespath
    except ImportError:
        message = "--query needs jmespath: pip install 'ief-async[cli]'"
        raise Usage(message) from None
    try:
        search: Callable[[Any], Any] = jmespath.compile(arguments.query).search
    except jmespath.exceptions.JMESPathError as error:
        message = f"--query is no JMESPath: {str(error).splitlines()[0]}"
        raise Usage(message) from None
    return search


def _keep(arguments: argparse.Namespace) -> Callable[[Any], bool] | None:
    """Return what says which pods are wanted; the service itself filters the other lists."""
    if arguments.command != "pods" or not (arguments.state or arguments.name):
        return None
    states = {state.upper() for state in arguments.state or ()}
    pattern = arguments.name or "*"

    def keep(pod: Any) -> bool:
        known = pod if isinstance(pod, Mapping) else {"state": pod.state, "name": pod.name}
        return (not states or (known["state"] or "").upper() in states) and fnmatch.fnmatchcase(
            known["name"] or "", pattern
        )

    return keep


def _fields(
    arguments: argparse.Namespace, form: str, model: type, *, filtered: bool
) -> list[str] | None:
    """Return the fields that are decoded, or None for all."""
    known = [field.name for field in attrs.fields(model)]
    given = None
    if arguments.columns is not None:
        given = _names(arguments)
        wrong = [one for one in given if one not in known]
        if wrong or not given:
            message = f"--columns has {', '.join(wrong) or 'no name'}; there are {', '.join(known)}"
            raise Usage(message)
    elif form == "name":
        given = ["id"]
    elif form in {"table", "wide", "tsv"} and not arguments.query:
        given = fields_of(_columns(arguments, form))
    if given is None or not filtered:
        return given
    more = [one for one in ("state", "name") if one not in given]
    if more and (arguments.file or form in BINARY):
        message = f"--columns has to have {' and '.join(more)}, too, as pods are filtered by it"
        raise Usage(message)
    return given + more


def _names(arguments: argparse.Namespace) -> list[str]:
    """Return the columns that are asked for, each once."""
    names = (arguments.columns or "").split(",")
    return list(dict.fromkeys(name for one in names if (name := one.strip())))


def _columns(arguments: argparse.Namespace, form: str) -> list[Column]:
    if arguments.columns:
        return [Column(name.upper(), name) for name in _names(arguments)]
    usual, more = COLUMNS[arguments.command]
    if form == "table":
        return list(usual)
    aged = "AGE" if form == "tsv" else None
    return [
        Column("CREATED_AT", one.field) if one.title == aged else one for one in (*usual, *more)
    ]


def _session(arguments: argparse.Namespace) -> IefSession:
    names = ("region", "project_id", "instance_id", "endpoint", "iam_endpoint")
    given: dict[str, Any] = {
        name: value for name in names if (value := getattr(arguments, name)) is not None
    }
    if not {"region", "endpoint"} & given.keys() and known_region() is None:
        message = "--region or --endpoint is needed, or HUAWEICLOUD_SDK_REGION_IEF_… to be set"
        raise Usage(message)
    limits = Limits(concurrency=arguments.concurrency, requests_per_second=arguments.rate)
    return IefSession.from_env(arguments.profile, limits=limits, **given)


def read_ids(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Set `ids`: the one kind that is given, and the ids; None for the whole project."""
    arguments.ids = None
    if arguments.command not in {"pods", "count"}:
        return
    given = {
        f"{kind}_ids": ids
        for kind in ("deployment", "node", "group")
        if (ids := getattr(arguments, f"{kind}_id"))
    }
    if len(given) > 1:
        message = "give --deployment-id, --node-id or --group-id, not several of them"
        raise Usage(message)
    if not given:
        return
    ((name, texts),) = given.items()
    found: list[str] = []
    for text in texts:
        if text == "-":
            outcome.to_go_on.append("with the same ids on standard input")
            found += _lines_of_ids()
        else:
            found.append(text)
    arguments.ids = name, found


def _lines_of_ids() -> list[str]:
    """Read ids from standard input: one on each line, or a JSON document with an ``id``."""
    ids = []
    for line in sys.stdin.buffer:
        text = line.decode(errors="replace").strip()
        if text.startswith("{"):
            try:
                text = msgspec.json.decode(text, type=_Identified).id
            except msgspec.MsgspecError:
                message = f"standard input has a line without an id: {text[:60]}"
                raise Usage(message) from None
        if text and not text.startswith("#"):
            ids.append(text)
    return ids


def _saved_at(arguments: argparse.Namespace, form: str) -> str | None:
    """Return the file of the checkpoint, if there is to be one."""
    saved: str | None = getattr(arguments, "checkpoint", None)
    if saved and not arguments.file and form not in GOES_ON:
        message = f"--checkpoint goes with --file, or with -o {', '.join(GOES_ON)}"
        raise Usage(message)
    if not saved and getattr(arguments, "restart", False):
        message = "--restart goes with --checkpoint"
        raise Usage(message)
    return saved


def _begun(arguments: argparse.Namespace, saved: str | None, hold: Hold) -> ScanCheckpoint | None:
    """Return what the checkpoint knows as done, which is nobody else's from here on."""
    from ief_async.sinks import export_of, load_checkpoint

    if not saved:
        return None
    hold.take(saved, CheckpointError)
    if arguments.restart:
        Path(saved).unlink(missing_ok=True)
    begun = load_checkpoint(saved)
    if arguments.file:
        hold.release()  # an export holds it by itself, and looks whether it is the same still
    elif (file := export_of(saved)) is not None:
        message = f"{saved} is of an export to {file}: give its --file, or --restart"
        raise CheckpointError(message)
    return begun


def _stream(
    ief: IefSession,
    arguments: argparse.Namespace,
    fields: Sequence[str] | None,
    begun: ScanCheckpoint | None,
) -> Stream[Any]:
    name, ids = arguments.command, arguments.ids
    model: Any = MODELS[name] if fields is None else narrowed(MODELS[name], fields)
    options: dict[str, Any] = {
        "model": model,
        "page_size": arguments.page_size or PAGE_SIZES.get(name, SMALL_PAGE),
        "concurrency": arguments.concurrency,
        "on_drift": arguments.on_drift,
        "on_bad_item": arguments.on_bad_item,
        "max_items": arguments.max_items,
        "deadline": arguments.deadline,
    }
    if name != "pods":
        chosen = {one.replace("-", "_") for one in LISTS[name]}
        options |= {one: getattr(arguments, one) for one in chosen}
        read: Callable[..., Stream[Any]] = getattr(ief, f"iter_{name}")
        return read(**options)
    options |= {"on_error": arguments.on_error, "batch_size": arguments.batch_size}
    options["resume_from"] = begun
    if ids is None:
        # the oldest first: what comes meanwhile stands behind what a checkpoint knows
        return ief.iter_pods(
            ief.iter_deployments(
                model=Found,
                sort="created_at:asc",
                on_drift=arguments.on_drift,
                on_bad_item=arguments.on_bad_item,
            ),
            **options,
        )
    selected: dict[str, Any] = {ids[0]: ids[1]}
    pods: Callable[..., Stream[Any]] = ief.iter_pods
    return pods(**selected, **options)


async def _export(stream: Stream[Any], arguments: argparse.Namespace, form: str, keep: Any) -> None:
    from ief_async import sinks

    write = {
        "parquet": sinks.write_parquet,
        "arrow": sinks.write_arrow,
        "ndjson": sinks.write_ndjson,
    }[form]
    checkpoint = getattr(arguments, "checkpoint", None)
    to: Any = arguments.file or stdout()
    await write(stream, to, keep=keep, checkpoint=checkpoint)


def _writer(
    file: Exact,
    arguments: argparse.Namespace,
    form: str,
    query: Callable[[Any], Any] | None,
    *,
    headed: bool,
) -> Writer:
    """Return what writes rows to stdout."""
    columns = _columns(arguments, form)
    if form in {"table", "wide"}:
        width = terminal_width() if sys.stdout.isatty() and form == "table" else None
        return Table(file, columns, width, coloured=not is_plain(sys.stdout))
    if form == "name":
        return Lines(file, lambda row: as_text(row["id"]))
    names = _names(arguments)
    if form == "json":
        return Array(file, query, names)
    if form == "tsv" and query is None:
        head = tab_separated(column.title for column in columns)
        return Lines(
            file,
            lambda row: tab_separated(one.text(row) for one in columns),
            head if headed else None,
        )

    def line(row: Mapping[str, Any]) -> str | None:
        own = {name: row[name] for name in names} if names else row  # without what filters need
        found = own if query is None else query(own)
        if found is None:
            return None
        if form == "ndjson":
            return dumped(found)
        return tab_separated(
            found.values()
            if isinstance(found, dict)
            else found
            if isinstance(found, list)
            else [found]
        )

    return Lines(file, line)


@attrs.define
class _Printed:
    """What writes pages to stdout.

    Attributes:
        plain: whether the lines of a page are written as they are.
        done: what is out.
    """

    out: Exact
    writer: Writer
    keep: Callable[[Any], bool] | None
    plain: bool
    done: ScanCheckpoint | None = None

    @property
    def found_nothing(self) -> bool:
        """Whether it printed nothing at all, as a table does that has no rows."""
        return isinstance(self.writer, Table) and self.writer.empty

    def write(self, page: Page[Any]) -> None:
        """Write a page; a file has all of it then, or none."""
        with self.out.transaction():
            if self.plain:
                self.out.write(b"\n".join([*page.items, b""]))
            else:
                rows = [msgspec.json.decode(line) for line in page.items]
                self.writer.write([row for row in rows if self.keep(row)] if self.keep else rows)
        self.done = page.checkpoint

    def save(self, to: str) -> None:
        """Keep what is done, which is on the disk before if it is for a disk."""
        from ief_async.sinks import save_checkpoint

        if self.done is not None:
            self.out.sync()
            save_checkpoint(self.done, to)


async def _print(
    stream: Stream[Any],
    printed: _Printed,
    clear: Callable[[], None],
    saved: str | None,
    outcome: Outcome,
) -> None:
    """Write the rows of a stream as they come, and keep what is out if that is asked for.

    The event loop goes on meanwhile, so that a slow reader makes no request run out of time. Who
    ends the command waits for the page in hand: what is kept is what is out, neither more nor less.
    """
    engine = engine_of(stream)
    engine.reader = LineReader(structure_of(engine.reader.model), for_arrow=False)
    pages = 0
    worker = Worker()
    shared = _is_shared()

    async def do(work: Callable[..., None], *given: Any) -> None:
        if shared:  # what is told meanwhile would stand in the midst of a row
            clear()
            work(*given)
        else:
            worker.begin(work, *given)
            await worker.end()

    try:
        async for page in stream.pages():
            await do(printed.write, page)
            pages += 1
            if saved and pages % SAVED_PAGES == 0:
                await do(printed.save, saved)
        await do(printed.writer.close)
    except BaseException:
        await worker.rest()
        if saved:
            _save(printed, saved, outcome)
        raise
    if saved and stream.report.failures:
        printed.done = stream.checkpoint()
        _save(printed, saved, outcome)
    elif saved:
        Path(saved).unlink(missing_ok=True)  # noqa: ASYNC240  nothing else runs any more


def _is_shared() -> bool:
    """Tell whether data and all else go to one place: a terminal, or by ``2>&1``."""
    try:
        one = os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        one = False
    return one or (sys.stdout.isatty() and sys.stderr.isatty())


def _save(printed: _Printed, saved: str, outcome: Outcome) -> None:
    """Keep what is out, and tell where the rest would not fit below it."""
    if printed.out.torn:
        outcome.to_go_on.append("once the part of a page at its end is removed")
    try:
        printed.save(saved)
    except OSError as error:
        outcome.to_go_on.append(f"with rows that come twice, as it could not be saved ({error})")


# ---- the other commands ------------------------------------------------------------------------


async def _count(arguments: argparse.Namespace, _: Outcome) -> int:
    ids = arguments.ids
    options: dict[str, Any] = {
        "page_size": arguments.page_size or PAGE_SIZES["pods"],
        "batch_size": arguments.batch_size,
        "concurrency": arguments.concurrency,
    }
    async with _session(arguments) as ief:
        if ids is None:
            found = await ief.count_pods(ief.iter_deployments(model=Found), **options)
        else:
            selected: dict[str, Any] = {ids[0]: ids[1]}
            found = await ief.count_pods(**selected, **options)
    if arguments.output == "json":
        show(json.dumps(attrs.asdict(found)))
    else:
        show(f"pods              {found.total:>12,}\npages of a scan   {found.requests:>12,}")
    return Exit.WHOLE


async def _demo(arguments: argparse.Namespace, _: Outcome) -> int:
    return await demo(arguments)


async def _fake_server(arguments: argparse.Namespace, _: Outcome) -> int:
    from ief_async.testing import FakeIef

    fake = FakeIef(
        arguments.pods,
        deployments=arguments.deployments,
        latency=arguments.latency,
        fault_rate=arguments.faults,
        page_cap=arguments.page_cap,
    )
    async with fake:
        lines = [f"export {name}={value}" for name, value in fake.environment().items()]
        lines.append(f"# {len(fake.pods):,} pods at {fake.endpoint}; ends with Ctrl-C")
        show("\n".join(lines))
        await asyncio.Event().wait()
    return Exit.WHOLE


async def _completion(arguments: argparse.Namespace, _: Outcome) -> int:
    show(COMPLETIONS[arguments.shell]())
    return Exit.WHOLE


COMMANDS: dict[str, Callable[[argparse.Namespace, Outcome], Coroutine[Any, Any, int]]] = {
    **dict.fromkeys(LISTS, _list),
    "count": _count,
    "demo": _demo,
    "fake-server": _fake_server,
    "completion": _completion,
}
