"""The commands that list: from their arguments to a stream, and from there to a file or stdout."""

import argparse
import fnmatch
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from ief_async._checkpoint import ScanCheckpoint
from ief_async._endpoints import LISTINGS, PODS, Listed, Listing
from ief_async._errors import CheckpointError, ConfigurationError
from ief_async._file_formats import FILE_FORMATS, format_of, required_path
from ief_async._scan import ScanReport, Stream
from ief_async._session import IefSession
from ief_async._structure import narrowed
from ief_async._writing import Exact, Hold
from ief_async.cli._arguments import PRINTED, Exit
from ief_async.cli._inputs import session_of_arguments
from ief_async.cli._outcome import Outcome, Usage, say, told
from ief_async.cli._output import (
    Array,
    Column,
    Lines,
    Table,
    Writer,
    as_text,
    columns_of,
    dumped,
    fields_of,
    is_plain,
    stdout,
    tab_separated,
    terminal_width,
)
from ief_async.cli._printing import Printed, print_pages
from ief_async.cli._progress import bar_of, shown

# formats whose output can be appended to (>>) when a checkpoint is resumed
GOES_ON = ("ndjson", "tsv", "name")


async def list_rows(arguments: argparse.Namespace, outcome: Outcome) -> int:
    listing = LISTINGS[arguments.command]
    name, model = listing.name, listing.model
    form = _form(arguments)
    query = _query(arguments, form)
    keep = _keep(arguments)
    fields = _fields(arguments, form, model, filtered=keep is not None)
    saved = _saved_at(arguments, form)
    if saved and not arguments.file:
        outcome.to_go_on.append("with its output below (>>) what was written")
    with Hold() as hold:
        begun = _begun(arguments, saved, hold)
        async with session_of_arguments(arguments) as ief:
            stream = _stream(ief, listing, arguments, fields, begun)
            bar, printed = bar_of(quiet=arguments.quiet), None
            if not _is_exported(arguments, form):
                out = stdout()
                writer = _writer(out, arguments, form, query, headed=begun is None)
                plain = form == "ndjson" and keep is query is None
                printed = Printed(out, writer, keep, plain)
            try:
                async with shown(stream, bar):
                    if printed is None:
                        await _export(stream, arguments, form, keep)
                    else:
                        await print_pages(stream, printed, bar.clear, saved, outcome)
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


def _form(arguments: argparse.Namespace) -> str:
    """Return the format: as asked for, as the file's name says, or what the terminal is for."""
    form: str | None = arguments.output
    if arguments.file:
        return _file_form(Path(arguments.file), form)
    if form in FILE_FORMATS and not FILE_FORMATS[form].for_terminal and sys.stdout.isatty():
        message = f"-o {form} is not for a terminal: give --file, or a pipe"
        raise Usage(message)
    if form is None and arguments.query and sys.stdout.isatty():
        return "json"
    return form or ("table" if sys.stdout.isatty() else "ndjson")


def _file_form(path: Path, form: str | None) -> str:
    """Return the format of a file: as asked for, or as its suffix says."""
    by_suffix = format_of(path)
    if form is None and by_suffix is not None:
        form = by_suffix.name
    if form not in FILE_FORMATS:
        suffixes = " ".join(one for known in FILE_FORMATS.values() for one in known.suffixes)
        message = f"--file must end in one of {suffixes}, or come with -o {', '.join(FILE_FORMATS)}"
        raise Usage(message)
    if required := required_path(form, path):
        message = f"--file must be {required}, got {path.name}"
        raise Usage(message)
    return form


def _is_exported(arguments: argparse.Namespace, form: str) -> bool:
    """Tell whether `ief_async.sinks` writes the rows, and not the command itself."""
    return bool(arguments.file) or form not in PRINTED


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
        message = f"--query is not valid JMESPath: {str(error).splitlines()[0]}"
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
    if more and _is_exported(arguments, form):
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
    usual, more = columns_of(LISTINGS[arguments.command])
    if form == "table":
        return list(usual)
    aged = "AGE" if form == "tsv" else None
    return [
        Column("CREATED_AT", one.field) if one.title == aged else one for one in (*usual, *more)
    ]


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
    listing: Listing,
    arguments: argparse.Namespace,
    fields: Sequence[str] | None,
    begun: ScanCheckpoint | None,
) -> Stream[Any]:
    model: Any = listing.model if fields is None else narrowed(listing.model, fields)
    options: dict[str, Any] = {
        "model": model,
        "page_size": arguments.page_size,
        "concurrency": arguments.concurrency,
        "on_drift": arguments.on_drift,
        "on_bad_item": arguments.on_bad_item,
        "max_items": arguments.max_items,
        "deadline": arguments.deadline,
    }
    read: Callable[..., Stream[Any]] = getattr(ief, listing.operation)
    if listing is not PODS:
        return read(**options, **{one: getattr(arguments, one) for one in listing.filters})
    options |= {"on_error": arguments.on_error, "batch_size": arguments.batch_size}
    options["resume_from"] = begun
    if arguments.ids is None:
        # the oldest first: what comes meanwhile stands behind what a checkpoint knows
        return read(
            ief.iter_deployments(
                model=Listed,
                sort="created_at:asc",
                on_drift=arguments.on_drift,
                on_bad_item=arguments.on_bad_item,
            ),
            **options,
        )
    name, ids = arguments.ids
    return read(**{name: ids}, **options)


async def _export(stream: Stream[Any], arguments: argparse.Namespace, form: str, keep: Any) -> None:
    from ief_async import sinks

    write = getattr(sinks, f"write_{form}")
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
