"""The file formats by name, for the sinks, which write them, and for the command, which lists them.

It stands apart from `ief_async.sinks` so that ``--help`` imports no library. How a format is added
is told in `ief_async.sinks._formats`.
"""

from pathlib import Path

import attrs

COMPRESSIONS = (".gz", ".zst")


@attrs.frozen
class FileFormat:
    """A file format.

    Attributes:
        name: what ``-o`` and the state of an export call it, and ``write_…`` of `ief_async.sinks`.
        suffixes: those of its files; the first one is the usual one.
        for_terminal: whether a terminal may show it: it is text without control characters.
        compressible: whether ``.gz`` and ``.zst`` behind the suffix compress it.
    """

    name: str
    suffixes: tuple[str, ...]
    for_terminal: bool = False
    compressible: bool = False


FILE_FORMATS = {
    one.name: one
    for one in (
        FileFormat("parquet", (".parquet",)),
        FileFormat("arrow", (".arrow", ".arrows", ".feather")),
        FileFormat("ndjson", (".ndjson", ".jsonl"), for_terminal=True, compressible=True),
    )
}


def suffixes_of(form: FileFormat, suffix: str) -> list[str]:
    """Return a suffix of a format, alone and with each compression that the format can have."""
    return [suffix, *(suffix + one for one in COMPRESSIONS if form.compressible)]


def format_of(path: Path) -> FileFormat | None:
    """Return the format that the suffix of a path names, compressed or not."""
    suffix = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    return next((form for form in FILE_FORMATS.values() if suffix in form.suffixes), None)


def required_path(name: str, path: Path) -> str | None:
    """Return what a path must be if its suffix names a compression that the format can't have."""
    if path.suffix not in COMPRESSIONS or FILE_FORMATS[name].compressible:
        return None
    names = " and ".join(form.name for form in FILE_FORMATS.values() if form.compressible)
    return f"a path without {path.suffix}, as {path.suffix} compresses {names} only"
