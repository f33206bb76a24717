"""Files that are whole or not there."""

import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from zlib import crc32

from ief_async._errors import ConfigurationError

if TYPE_CHECKING:
    pass
PIECE = 1 << 20  # bytes of a part that are read at a time

To = str | os.PathLike[str] | BinaryIO


def beside(path: Path) -> Path:
    """Return another name beside a path: of a part, or of what is not whole yet."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def hidden_path(path: Path) -> Path:
    return beside(path.with_name(f".{path.name}"))


def check_place(path: Path) -> None:
    """Refuse what a file can't replace, before it is written rather than then."""
    if path.exists() and not path.is_file():
        message = f"{path} is no file that can be replaced: give a file's name, or open it yourself"
        raise ConfigurationError(message)


def mode_of(path: Path) -> int | None:
    """Return who may read and write a file, or None where there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except FileNotFoundError:
        return None


def new_file(path: Path, mode: int | None) -> BinaryIO:
    """Make a file that nobody may read who could not read the one that it is to replace."""
    given = 0o666 if mode is None else mode | 0o600  # this process writes and reads it
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, given))


def figures_of(path: Path) -> tuple[int, int]:
    """Return the bytes of a file, and their CRC."""
    size = crc = 0
    with path.open("rb") as file:
        while some := file.read(PIECE):
            size, crc = size + len(some), crc32(some, crc)
    return size, crc


def replace_file(path: Path, text: bytes) -> None:
    path = Path(os.path.realpath(path))
    mode = mode_of(path)
    hidden = hidden_path(path)
    try:
        with new_file(hidden, mode) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            hidden.chmod(mode)
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
