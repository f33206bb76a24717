"""What each command does: a coroutine that returns the exit code."""

import argparse
import asyncio
import fnmatch
import json
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from ief_async._environment import known_region
from ief_async._errors import Failure
from ief_async._models import Deployment, Group, Instance, Node, Pod
from ief_async._pacing import Limits
from ief_async._plain import Plain, narrowed
from ief_async._session import IefSession
from ief_async._stream import Stream, engine_of
from ief_async._structure import structure_of
from ief_async._texts import printable
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
    saved = getattr(arguments, "checkpoint", None)
    if saved and not arguments.file and form not in GOES_ON:
        message = f"--checkpoint goes with --file, or with -o {', '.join(GOES_ON)}"
        raise Usage(message)
    if getattr(arguments, "restart", False) and not saved:
        message = "--restart goes with --checkpoint"
        raise Usage(message)
    if saved and not arguments.file:
        outcome.to_go_on.append("with its output below (>>) what was written")
    async with _session(arguments) as ief:
        stream = _stream(ief, arguments, fields)
        bar, writer = bar_of(quiet=arguments.quiet), None
        try:
            async with shown(stream, bar):
                if arguments.file or form in BINARY:
                    await _export(stream, arguments, form, keep)
                else:
                    resumed = saved is not None and Path(saved).exists()  # noqa: ASYNC240  one look
                    writer = _writer(arguments, form, query, headed=not resumed)
                    plain = form == "ndjson" and keep is query is None
                    await _print(stream, writer, keep, bar.clear, saved=saved, plain=plain)
        except BaseException:
            outcome.saved = saved
            raise
        report = stream.report
    if report.failures:
        say("partial: some batches failed, all others came", *told(report.failures))
        outcome.saved = saved
        return Exit.PARTIAL
    if isinstance(writer, Table) and writer.empty and not arguments.quiet:
        say(f"no {name} found")
    if report.doubtful:
        batches = len(report.batches) + (len(report.ids.batches) if report.ids else 0)
        say(f"rows may be missing: {len(report.doubtful)} of {batches} batches moved too much")
        return Exit.DRIFT
    return Exit.WHOLE


def told(failures: Sequence[Failure]) -> list[str]:
    """Return a line for each of the first failures."""
    lines = [str(one.error) for one in failures[:TOLD]]
    more = len(failures) - len(lines)
    return [*lines, f"… and {more} more"] if more else lines


def say(*lines: str, prefix: str = "ief-async: ") -> None:
    """Print on stderr: stdout is for data. Nothing that a server said steers the terminal."""
    print(prefix + printable("\n".join(lines), lines=True), file=sys.stderr)


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


def _stream(
    ief: IefSession,
    arguments: argparse.Namespace,
    fields: Sequence[str] | None,
) -> Stream[Any]:
    name, ids = arguments.command, arguments.ids
    model: Any = MODELS[name] if fields is None else narrowed(MODELS[name], fields)
    options: dict[str, Any] = {
        "model": model,
        "page_size": arguments.page_size or PAGE_SIZES.get(name, SMALL_PAGE),
        "concurrency": arguments.concurrency,
        "on_drift": arguments.on_drift,
        "max_items": arguments.max_items,
        "deadline": arguments.deadline,
    }
    if name != "pods":
        chosen = {one.replace("-", "_") for one in LISTS[name]}
        options |= {one: getattr(arguments, one) for one in chosen}
        read: Callable[..., Stream[Any]] = getattr(ief, f"iter_{name}")
        return read(**options)
    options |= {"on_error": arguments.on_error, "batch_size": arguments.batch_size}
    if arguments.checkpoint:
        from ief_async.sinks import load_checkpoint

        if arguments.restart:
            Path(arguments.checkpoint).unlink(missing_ok=True)
        options["resume_from"] = load_checkpoint(arguments.checkpoint)
    if ids is None:
        # the oldest first: what comes meanwhile stands behind what a checkpoint knows
        return ief.iter_pods(
            ief.iter_deployments(sort="created_at:asc", on_drift=arguments.on_drift), **options
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
    await write(stream, arguments.file or stdout(), keep=keep, checkpoint=checkpoint)


def _writer(
    arguments: argparse.Namespace,
    form: str,
    query: Callable[[Any], Any] | None,
    *,
    headed: bool,
) -> Writer:
    """Return what writes rows to stdout."""
    file = stdout()
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


async def _print(
    stream: Stream[Any],
    writer: Writer,
    keep: Callable[[Any], bool] | None,
    clear: Callable[[], None],
    *,
    saved: str | None,
    plain: bool,
) -> None:
    """Write the rows of a stream as they come, and keep what is done if that is asked for."""
    from ief_async.sinks import save_checkpoint

    engine = engine_of(stream)
    engine.reader = Plain(structure_of(engine.reader.model), for_arrow=False)
    done, pages = None, 0
    both = sys.stdout.isatty() and sys.stderr.isatty()
    try:
        async for page in stream.pages():
            rows: list[Any] = [] if plain else [msgspec.json.decode(line) for line in page.items]
            rows = [row for row in rows if keep(row)] if keep else rows
            if both:
                clear()
            if plain:
                stdout().write(b"\n".join([*page.items, b""]))
                stdout().flush()
            else:
                writer.write(rows)
            done, pages = page.checkpoint, pages + 1
            if saved and pages % SAVED_PAGES == 0 and done is not None:
                await asyncio.to_thread(save_checkpoint, done, saved)
    except BaseException:
        if saved and done is not None:
            save_checkpoint(done, saved)
        raise
    if both:
        clear()
    writer.close()
    if saved:
        Path(saved).unlink(missing_ok=True)  # noqa: ASYNC240  nothing else runs any more


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
            found = await ief.count_pods(ief.iter_deployments(), **options)
        else:
            selected: dict[str, Any] = {ids[0]: ids[1]}
            found = await ief.count_pods(**selected, **options)
    if arguments.output == "json":
        print(json.dumps(attrs.asdict(found)))
    else:
        print(f"pods              {found.total:>12,}\npages of a scan   {found.requests:>12,}")
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
        for name, value in fake.environment().items():
            print(f"export {name}={value}")
        print(f"# {len(fake.pods):,} pods at {fake.endpoint}; ends with Ctrl-C", flush=True)
        await asyncio.Event().wait()
    return Exit.WHOLE


async def _completion(arguments: argparse.Namespace, _: Outcome) -> int:
    print(COMPLETIONS[arguments.shell]())
    return Exit.WHOLE


COMMANDS: dict[str, Callable[[argparse.Namespace, Outcome], Coroutine[Any, Any, int]]] = {
    **dict.fromkeys(LISTS, _list),
    "count": _count,
    "demo": _demo,
    "fake-server": _fake_server,
    "completion": _completion,
}
