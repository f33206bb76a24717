"""Writing to files: all bytes or an error, and one writer at a time."""

import contextlib
import io
import logging
import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from typing import Any, Self, TextIO

from ief_async._errors import IefError
from ief_async._observer import write

if sys.platform == "win32":
    import msvcrt
else:
    import errno
    import fcntl

    NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}

PATIENCE_SECONDS = 5.0  # without progress, for a file that can't be polled
SHORTEST_SECONDS, LONGEST_SECONDS = 0.001, 0.1  # between two tries


class Exact:
    """A binary file whose `write` writes all bytes, or raises.

    The file may accept a part of the bytes at a time, or none for now, like a full non-blocking
    pipe; the rest is written again. A file with a descriptor is waited for without limit. A file
    without one that accepts nothing for some seconds is an error. So is a `write` that returns an
    impossible number, as it is then unknown what was written.

    A `write` that returns ``None`` accepted nothing if the file is a raw file of `io`, has a
    non-blocking descriptor, or returned a number before. Otherwise the file is assumed never to
    return a number, and to have accepted everything.

    Attributes:
        taken: how many bytes the file accepted.
        torn: whether a `transaction` failed and left some of its bytes in the file.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.taken = 0
        self.torn = False
        self._counts = True if isinstance(file, io.RawIOBase) else None  # None: not known yet

    def write(self, data: Any) -> int:
        """Write all bytes; return their number."""
        rest = memoryview(data).cast("B")
        size, idle = len(rest), 0.0
        while rest:
            taken = self._offer(rest)
            self.taken += taken
            rest = rest[taken:]
            idle = 0.0 if taken else self._wait(idle)
        return size

    def flush(self) -> None:
        """Flush the file, if it has a buffer."""
        flush = getattr(self._file, "flush", None)
        idle = 0.0
        while callable(flush):
            try:
                flush()
            except BlockingIOError:
                idle = self._wait(idle)
            else:
                return

    def sync(self) -> None:
        """Sync the file to disk, if it is a regular file."""
        if self._size() is not None:
            os.fsync(self._file.fileno())

    def _offer(self, rest: memoryview) -> int:
        """Write bytes to the file; return how many it accepted."""
        try:
            said = self._file.write(rest)
        except BlockingIOError as error:  # raised by a buffer that accepted a part
            return getattr(error, "characters_written", 0)
        if said is None:
            if self._counts is None:
                self._counts = self._is_nonblocking()
            return 0 if self._counts else len(rest)
        before = " after None" if self._counts is False else ""
        is_count = isinstance(said, int) and not isinstance(said, bool)
        if before or not is_count or not 0 <= said <= len(rest):
            message = (
                f"write() of {self._name} returned {said!r:.40}{before} for {len(rest)} bytes, so "
                "it is unknown what was written: use a file whose write() returns a number"
            )
            raise OSError(message)
        self._counts = True
        return int(said)

    def _is_nonblocking(self) -> bool:
        try:
            return not os.get_blocking(self._file.fileno())
        except (AttributeError, OSError, TypeError, ValueError):
            return False

    def _wait(self, idle: float) -> float:
        """Wait until the file may accept more.

        Args:
            idle: seconds waited since the file last accepted something.

        Returns:
            The new value of `idle`.

        Raises:
            TimeoutError: the file accepted nothing for too long.
        """
        if self._awaited():
            return 0.0
        if idle >= PATIENCE_SECONDS:
            message = f"{self._name} accepted no byte for {PATIENCE_SECONDS:g} s and is incomplete"
            raise TimeoutError(message)
        pause = min(max(idle, SHORTEST_SECONDS), LONGEST_SECONDS)
        time.sleep(pause)
        return idle + pause

    def _awaited(self) -> bool:
        """Poll a full file by its descriptor; return whether that was possible and necessary."""
        try:
            poll = select.poll()
            poll.register(self._file.fileno(), select.POLLOUT)
            if poll.poll(0):
                return False
            poll.poll()
        except (AttributeError, OSError, TypeError, ValueError):  # no descriptor, or no poll
            return False
        return True

    @property
    def _name(self) -> str:
        name = getattr(self._file, "name", None)
        return name if isinstance(name, str) else f"a {type(self._file).__name__}"

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Remove what the block wrote if it raises; set `torn` if that is impossible."""
        taken, size = self.taken, self._size()
        try:
            yield
        except BaseException:
            more = self.taken - taken
            self.torn = bool(more) and not self._cut(size, more)
            raise

    def _size(self) -> int | None:
        """Return the size of a regular file; None for anything else."""
        try:
            number = self._file.fileno()
            known = os.fstat(number)
            is_file = stat.S_ISREG(known.st_mode)
        except (AttributeError, OSError, TypeError, ValueError):
            return None
        return known.st_size if is_file else None

    def _cut(self, size: int | None, more: int) -> bool:
        """Truncate the file to this size, if exactly `more` bytes were added to it."""
        if size is None or self._size() != size + more:
            return False
        try:
            number = self._file.fileno()
            if os.lseek(number, 0, os.SEEK_CUR) != size + more:
                return False
            os.ftruncate(number, size)
            os.lseek(number, 0, os.SEEK_END)
        except OSError:
            return False
        return True


def exact(file: Any) -> Exact:
    """Wrap a binary file in an `Exact`."""
    return file if isinstance(file, Exact) else Exact(file)


def put(text: str, to: TextIO | None) -> None:
    """Print a whole text to a stream, however little the stream accepts at a time."""
    if to is None:  # the process was started with the stream closed
        return
    exact(to).flush()
    buffer = getattr(to, "buffer", None)
    if buffer is None:  # such as a StringIO
        to.write(text)
        return
    # not through its buffer, which would write at exit what could not be written now
    out = exact(getattr(buffer, "raw", buffer))
    out.write(text.encode(to.encoding, to.errors or "strict"))
    out.flush()


class Hold:
    """Locks on files, held until they are released or the process ends in any way.

    The lock of a file is a lock file next to it, ``.name.lock``. A lock file left behind by a
    killed process locks nothing.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, str]] = []  # descriptors and paths of locks
        self._process = os.getpid()

    def take(self, path: str | os.PathLike[str], error: type[IefError]) -> None:
        """Lock a file.

        Args:
            path: the file, which need not exist.
            error: the class of the error to raise if it is locked already.

        Raises:
            IefError: the file is locked; the class is `error`.
            OSError: the lock file can't be created.
        """
        folder, name = os.path.split(os.path.realpath(path))  # one lock for all paths of a file
        lock = os.path.join(folder, f".{name}.lock")  # noqa: PTH118  what was split is joined
        try:
            number = _locked(lock)
        except OSError as problem:
            problem.filename = os.fspath(path)  # the caller does not know the lock file
            raise
        if number is None:
            message = (
                f"{os.fspath(path)} is in use by another export or command that is still running: "
                "wait until it ends, or use another path"
            )
            raise error(message)
        self._held.append((number, lock))

    def release(self) -> None:
        """Unlock all files."""
        while self._held:
            number, lock = self._held.pop()
            if os.getpid() == self._process:
                _unlock(number, lock)
            else:  # in a forked child: the lock belongs to its parent
                os.close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()  # if an event loop is closed too early, no `finally` runs


def _locked(path: str) -> int | None:
    """Lock a lock file; return its descriptor, or None if it is locked already."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(number)
            # its holder may have removed it since it was opened: then it locks nothing
            current = _is_current(number, path)
        except BaseException:
            os.close(number)
            raise
        if locked and current:
            return number
        os.close(number)
        if current:
            return None


def _is_current(number: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))  # noqa: PTH116  as os.fstat
    except FileNotFoundError:
        return False


if sys.platform == "win32":

    def _lock(number: int) -> bool:
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _unlock(number: int, path: str) -> None:
        os.close(number)
        with contextlib.suppress(OSError):  # another process has opened it, and will remove it
            os.unlink(path)  # noqa: PTH108  as the lock is known by its string

else:

    def _lock(number: int) -> bool:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            line = "this file system has no locks: two exports to the same file are not detected"
            write(logging.WARNING, line)
        return True

    def _unlock(number: int, path: str) -> None:
        with contextlib.suppress(OSError):  # a lock file that remains locks nothing
            if _is_current(number, path):
                os.unlink(path)  # noqa: PTH108  as the lock is known by its string
            fcntl.flock(number, fcntl.LOCK_UN)  # a forked child may also have it open
        os.close(number)
