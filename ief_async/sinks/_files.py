"""Files that appear under their name only when they are whole."""

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Generic, Protocol, TypeVar
from zlib import crc32

from ief_async._errors import ConfigurationError
from ief_async._writing import exact

READ_BYTES = 1 << 20  # of a part, at a time


class Closable(Protocol):
    """A writer that puts the end of its format into the file when it is closed."""

    def close(self) -> None:
        """Write what has to stand at the end."""


W = TypeVar("W", bound=Closable)


def part_path(path: Path) -> Path:
    """Return a new name beside a path, for a part of the file."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")


def hidden_path(path: Path) -> Path:
    """Return a new hidden name beside a path, for a file that is not whole yet."""
    return part_path(path.with_name(f".{path.name}"))


def check_replaceable(path: Path) -> None:
    """Refuse a path that no file can replace, such as a folder, before anything is written.

    Raises:
        ConfigurationError: something other than a regular file is there.
    """
    if path.exists() and not path.is_file():
        message = (
            f"{path} can't be replaced, as it is not a file: give another path, or a file object"
        )
        raise ConfigurationError(message)


def mode_of(path: Path) -> int | None:
    """Return the permissions of a file, or None if there is no file."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except FileNotFoundError:
        return None


def new_file(path: Path, mode: int | None) -> BinaryIO:
    """Create a file that is no more readable to others than the file that it will replace."""
    given = 0o666 if mode is None else mode | 0o600  # this process writes and reads it
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, given))


def size_and_crc(path: Path) -> tuple[int, int]:
    """Return the length of a file in bytes, and the CRC-32 of its content."""
    size = crc = 0
    with path.open("rb") as file:
        while some := file.read(READ_BYTES):
            size, crc = size + len(some), crc32(some, crc)
    return size, crc


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads it finds the old content or the new one."""
    path = Path(os.path.realpath(path))
    mode = mode_of(path)
    hidden = hidden_path(path)
    try:
        with new_file(hidden, mode) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            hidden.chmod(mode)
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


class UnclosedFile:
    """A file object to give to writers that close their file: it stays open, for its owner.

    Attributes:
        exact: the file, which takes all bytes of a write or raises.
        crc: the CRC-32 of what was written.
    """

    closed = False

    def __init__(self, file: Any) -> None:
        self.exact = exact(file)
        self.crc = 0
        self._abandoned = False

    def write(self, data: Any) -> int:
        """Write all of it; return its length in bytes."""
        if self._abandoned:
            return memoryview(data).nbytes
        self.crc = crc32(data, self.crc)
        return self.exact.write(data)

    def flush(self) -> None:
        """Do nothing: the owner of the file flushes it."""

    def close(self) -> None:
        """Do nothing: the owner of the file closes it."""

    def abandon(self, writer: Closable) -> None:
        """Close a writer, and keep what it writes at its end from the file."""
        self._abandoned = True
        with contextlib.suppress(Exception):
            writer.close()


class AtomicFile(Generic[W]):
    """A file that is written under a hidden name, and gets its own name when it is whole.

    A symbolic link is followed: the file that it leads to is replaced. The permissions are those of
    the file that it replaces.
    """

    def __init__(
        self, path: Path, begin: Callable[[UnclosedFile], W], *, mode_from: Path | None = None
    ) -> None:
        """Open the hidden file.

        Args:
            path: the name that the file gets.
            begin: makes the writer of the file.
            mode_from: the file whose permissions it gets; by default the one that it replaces.
        """
        check_replaceable(path)
        self._path = Path(os.path.realpath(path))
        self._mode_from = mode_from or self._path
        self._hidden = hidden_path(self._path)
        self._file = new_file(self._hidden, mode_of(self._mode_from))
        self._unclosed = UnclosedFile(self._file)
        try:
            self.writer = begin(self._unclosed)
        except BaseException:
            self._file.close()
            self._hidden.unlink()
            raise

    @property
    def size_and_crc(self) -> tuple[int, int]:
        """The bytes written so far, and their CRC-32."""
        return self._unclosed.exact.taken, self._unclosed.crc

    def finish(self) -> None:
        """Bring the file to the disk and give it its name; if that fails, remove it."""
        try:
            self.writer.close()
            self._unclosed.exact.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            if (mode := mode_of(self._mode_from)) is not None:  # the umask may have narrowed it
                self._hidden.chmod(mode)
            self._hidden.replace(self._path)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove the file."""
        self._unclosed.abandon(self.writer)
        with contextlib.suppress(OSError):
            self._file.close()
        self._hidden.unlink(missing_ok=True)
