"""Rows as text: tables that fit the terminal, TSV, JSON and NDJSON, as the rows come."""

import json
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import attrs

from ief_async._endpoints import Listing
from ief_async._models import parse_timestamp
from ief_async._texts import printable, printable_json
from ief_async._writing import Exact, exact, put

SAMPLE = 100  # rows that a table's columns are fitted to
LEAST = 6  # cells of a column, if it is cut
GAP = "  "
COLOURS = {
    "RUNNING": "32",
    "SUCCEEDED": "32",
    "FAILED": "31",
    "FAIL": "31",
    "CREATE_FAIL": "31",
    "DELETE_FAILED": "31",
    "UNCONNECTED": "31",
    "PENDING": "33",
    "PENDING_DELETE": "33",
    "TERMINATING": "33",
    "UPGRADING": "33",
    "UNKNOWN": "35",
}
AGES = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def is_plain(file: Any) -> bool:
    """Tell whether a stream takes text alone: no terminal, or one without colours."""
    dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return dumb or not file.isatty()


# ---- cells -------------------------------------------------------------------------------------


def age(text: str | None) -> str:
    """Return how long ago a time was, in its two largest units at most."""
    moment = parse_timestamp(text)
    if moment is None:
        return text or ""
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    if seconds < 0:
        return text or ""
    size, unit = next(((size, unit) for size, unit in AGES if seconds >= size), (1, "s"))
    return f"{seconds // size}{unit}"


def restarts(row: Mapping[str, Any]) -> int:
    """Return how often the containers of a pod were started anew."""
    return sum(one.get("restarts") or 0 for one in row.get("containers") or ())


Cell = Callable[[Mapping[str, Any]], Any]


@attrs.frozen
class Column:
    """A column of a table: its title, and the field or the function that fills it."""

    title: str
    field: str
    cell: Cell | None = None

    def text(self, row: Mapping[str, Any]) -> str:
        """Return what stands in a row's cell; "-" where there is nothing."""
        value = self.cell(row) if self.cell else row.get(self.field)
        return as_text(value) or "-"


def as_text(value: Any) -> str:
    r"""Return a value in one line, with ``\x1b`` and the like for what would steer a terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = ",".join(value)
    return printable(value) if isinstance(value, str) else dumped(value, separators=None)


def _since(field: str) -> Cell:
    return lambda row: age(row.get(field))


ID = Column("ID", "id")
NAME = Column("NAME", "name")
STATE = Column("STATE", "state")
AGE = Column("AGE", "created_at", _since("created_at"))
# the columns of a list's table, and those that a wide one adds; see `columns_of` for others
COLUMNS: dict[str, tuple[tuple[Column, ...], tuple[Column, ...]]] = {
    "pods": (
        (NAME, STATE, Column("RESTARTS", "containers", restarts), Column("NODE", "node_id"), AGE),
        (ID, Column("DEPLOYMENT", "deployment_id"), Column("REASON", "reason")),
    ),
    "deployments": (
        (
            NAME,
            Column(
                "READY",
                "replicas",
                lambda row: f"{row.get('ready_replicas') or 0}/{row.get('replicas') or 0}",
            ),
            ID,
            AGE,
        ),
        (STATE, Column("GROUP", "group_id"), Column("NODES", "node_ids")),
    ),
    "nodes": (
        (
            NAME,
            STATE,
            Column("PODS", "deployment_num"),
            Column("ARCH", "arch"),
            Column("IPS", "host_ips"),
            AGE,
        ),
        (ID, Column("OS", "os_name"), Column("CPU", "cpu"), Column("MEMORY", "memory")),
    ),
    "groups": (
        (NAME, ID, Column("NODES", "nodes", lambda row: len(row.get("nodes") or ())), AGE),
        (Column("DESCRIPTION", "description"),),
    ),
    "instances": (
        (ID, Column("STATUS", "status"), Column("EDITION", "edition"), AGE),
        (Column("VERSION", "version"), Column("DOMAIN", "access_domain")),
    ),
}
FIELDS = {"READY": ("replicas", "ready_replicas")}  # what a column needs besides its own


def columns_of(listing: Listing) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Return the columns of a list's table, and those that a wide one adds."""
    known = {field.name for field in attrs.fields(listing.model)}
    plain = tuple(one for one in (NAME, STATE, ID, AGE) if one.field in known)
    return COLUMNS.get(listing.name, (plain, ()))


def fields_of(columns: Iterable[Column]) -> list[str]:
    """Return the fields that columns need, and the id that a list is read by."""
    needed = {"id": None}
    for column in columns:
        needed |= dict.fromkeys(FIELDS.get(column.title, (column.field,)))
    return list(needed)


# ---- writers -----------------------------------------------------------------------------------


class Writer(Protocol):
    """A format, as rows come."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write some rows."""

    def close(self) -> None:
        """Write what has to stand at the end."""


@attrs.define
class Lines:
    """A text for each row: NDJSON, TSV, or names."""

    file: Exact = attrs.field(converter=exact)
    line: Callable[[Mapping[str, Any]], str | None]
    head: str | None = None

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        texts = [text for row in rows if (text := self.line(row)) is not None]
        if self.head is not None:
            texts.insert(0, self.head)
            self.head = None
        self.file.write("".join(f"{text}\n" for text in texts).encode())
        self.file.flush()

    def close(self) -> None:
        self.write(())


@attrs.define
class Array:
    """One JSON array; by a query that needs it whole, at the end."""

    file: Exact = attrs.field(converter=exact)
    query: Callable[[Any], Any] | None = None
    names: Sequence[str] = ()
    _whole: list[Any] = attrs.field(factory=list)
    _begun: bool = False

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.names:
            rows = [{name: row[name] for name in self.names} for row in rows]
        if self.query is not None:
            self._whole += rows
            return
        texts = []
        for row in rows:
            texts.append((",\n" if self._begun else "[\n") + dumped(row))
            self._begun = True
        self.file.write("".join(texts).encode())
        self.file.flush()

    def close(self) -> None:
        if self.query is not None:
            text = dumped(self.query(self._whole), separators=None, indent=2)
            self.file.write(f"{text}\n".encode())
        else:
            self.file.write(b"\n]\n" if self._begun else b"[]\n")
        self.file.flush()


@attrs.define
class Table:
    """Columns side by side, fitted to the first rows, and cut to a width if there is one."""

    file: Exact = attrs.field(converter=exact)
    columns: Sequence[Column]
    width: int | None
    coloured: bool
    _held: list[list[str]] = attrs.field(factory=list)
    _widths: list[int] = attrs.field(factory=list)

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        cells = [[column.text(row) for column in self.columns] for row in rows]
        if self._widths:
            self._print(cells)
            return
        self._held += cells
        if len(self._held) >= SAMPLE:
            self._fit()

    @property
    def empty(self) -> bool:
        """Whether no row has come."""
        return not self._widths and not self._held

    def close(self) -> None:
        if self._held:
            self._fit()

    def _fit(self) -> None:
        held = [[column.title for column in self.columns], *self._held]
        widths = [max(map(cells_of, texts)) for texts in zip(*held, strict=True)]
        if self.width is not None:
            while sum(widths) + len(GAP) * (len(widths) - 1) > self.width and max(widths) > LEAST:
                widths[widths.index(max(widths))] -= 1
        self._widths, self._held = widths, []
        self._print(held[:1], bold=True)
        self._print(held[1:])

    def _print(self, rows: Sequence[Sequence[str]], *, bold: bool = False) -> None:
        lines = []
        for row in rows:
            cells = []
            for text, width in zip(row, self._widths, strict=True):
                shown = fitted(text, width) if self.width is not None else text
                padded = shown + " " * (width - cells_of(shown))
                colour = "1" if bold else COLOURS.get(text)
                cells.append(
                    f"\x1b[{colour}m{padded}\x1b[0m" if colour and self.coloured else padded
                )
            lines.append(GAP.join(cells).rstrip() + "\n")
        self.file.write("".join(lines).encode())
        self.file.flush()


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes: Chinese characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def fitted(text: str, width: int) -> str:
    """Return a text that takes so many cells at most; what is cut ends in an ellipsis."""
    if cells_of(text) <= width:
        return text
    while text and cells_of(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def terminal_width() -> int:
    """Return how many cells a line of the terminal has."""
    return shutil.get_terminal_size().columns


def dumped(
    value: Any, *, separators: tuple[str, str] | None = (",", ":"), indent: int | None = None
) -> str:
    r"""Return a value as JSON; what would steer a terminal stands there as ``\u009b``."""
    text = json.dumps(value, ensure_ascii=False, separators=separators, indent=indent)
    return printable_json(text)


def tab_separated(values: Iterable[Any]) -> str:
    """Return values in one line, tabs between them and in none of them."""
    return "\t".join(map(as_text, values))


def stdout() -> Exact:
    """Return where data goes, past Python's buffer, which would hide how much of it is out."""
    exact(sys.stdout).flush()
    buffer = sys.stdout.buffer
    return exact(getattr(buffer, "raw", buffer))


def show(text: str) -> None:
    """Print lines on standard output, all of them or an error."""
    put(f"{text}\n", sys.stdout)
