"""How bytes reach a file: all of them or an error, and from one writer at a time."""

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

    LOCKLESS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}

PATIENCE_SECONDS = 5.0  # without a byte taken, where nothing tells when a file takes more
SHORTEST_SECONDS, LONGEST_SECONDS = 0.001, 0.1  # between two tries


class Exact:
    """A binary file that takes all that is written to it, or raises.

    A file may take a part at a time, or nothing for now, as a full pipe does that does not block:
    it is offered the rest, and is waited for, by its descriptor as long as that takes. A file
    without one that takes nothing for some seconds is an error, and so is a `write` whose result
    can't be: nobody knows then what was written.

    A ``None`` means that nothing was taken where `io` says so, which is for raw files, and for a
    file whose descriptor does not block or whose `write` returned a number before. Else it means
    that `write` returns no number at all, and took everything, as many files of other libraries do.

    Attributes:
        taken: how many bytes the file took.
        torn: whether a `transaction` failed, and a part of it stands in the file.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.taken = 0
        self.torn = False
        self._counts = True if isinstance(file, io.RawIOBase) else None  # None: not known yet

    def write(self, data: Any) -> int:
        """Write all of it; return how many bytes that were."""
        rest = memoryview(data).cast("B")
        size, idle = len(rest), 0.0
        while rest:
            taken = self._offer(rest)
            self.taken += taken
            rest = rest[taken:]
            idle = 0.0 if taken else self._wait(idle)
        return size

    def flush(self) -> None:
        """Bring out what the file holds back, if it can hold something back."""
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
        """Bring it to the disk, if it is a file there."""
        if self._size() is not None:
            os.fsync(self._file.fileno())

    def _offer(self, rest: memoryview) -> int:
        """Return how much of it the file takes."""
        try:
            said = self._file.write(rest)
        except BlockingIOError as error:  # of a buffer, which took a part
            return getattr(error, "characters_written", 0)
        if said is None:
            if self._counts is None:
                self._counts = self._is_nonblocking()
            return 0 if self._counts else len(rest)
        before = " after None" if self._counts is False else ""
        is_count = isinstance(said, int) and not isinstance(said, bool)
        if before or not is_count or not 0 <= said <= len(rest):
            message = (
                f"write() of {self._name} returned {said!r:.40}{before} for {len(rest)} bytes: "
                "what was written is not known"
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
        """Wait until the file may take more.

        Args:
            idle: seconds of waiting since the file took something.

        Returns:
            The same, with this one.
        """
        if self._awaited():
            return 0.0
        if idle >= PATIENCE_SECONDS:
            message = f"{self._name} took nothing for {PATIENCE_SECONDS:g} s: it was not written"
            raise TimeoutError(message)
        pause = min(max(idle, SHORTEST_SECONDS), LONGEST_SECONDS)
        time.sleep(pause)
        return idle + pause

    def _awaited(self) -> bool:
        """Wait while the file is full; tell whether it was, and has a descriptor that says so."""
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
        """Cut off what is written meanwhile if this does not end well; `torn` tells if it can't."""
        taken, size = self.taken, self._size()
        try:
            yield
        except BaseException:
            more = self.taken - taken
            self.torn = bool(more) and not self._cut(size, more)
            raise

    def _size(self) -> int | None:
        """Return how large it is as a file on a disk; None if it is anything else."""
        try:
            number = self._file.fileno()
            known = os.fstat(number)
            is_file = stat.S_ISREG(known.st_mode)
        except (AttributeError, OSError, TypeError, ValueError):
            return None
        return known.st_size if is_file else None

    def _cut(self, size: int | None, more: int) -> bool:
        """Cut off this many bytes behind a size, if nothing but them stands there."""
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
    """Return a binary file as one that takes all of what is written, or raises."""
    return file if isinstance(file, Exact) else Exact(file)


def put(text: str, to: TextIO | None) -> None:
    """Print a text, all of it, whatever the stream takes at a time."""
    if to is None:  # it was closed when the process began: nobody reads it
        return
    exact(to).flush()
    buffer = getattr(to, "buffer", None)
    if buffer is None:  # no bytes are behind it, as with a StringIO
        to.write(text)
        return
    # past its buffer, which would keep what could not be written, and write it in the end
    out = exact(getattr(buffer, "raw", buffer))
    out.write(text.encode(to.encoding, to.errors or "strict"))
    out.flush()


class Hold:
    """Files that this process works on alone, until it releases them or ends, by whatever.

    The lock of a file is a file beside it, ``.name.lock``, which is there while the lock is held,
    and means nothing when a killed process left it behind.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, str]] = []  # descriptors and paths of locks
        self._process = os.getpid()

    def take(self, path: str | os.PathLike[str], error: type[IefError]) -> None:
        """Take a file, too, or raise this error where it is taken.

        Raises:
            OSError: a lock can't be made there.
        """
        folder, name = os.path.split(os.path.realpath(path))  # one file has one lock
        lock = os.path.join(folder, f".{name}.lock")  # noqa: PTH118  what was split is joined
        try:
            number = _locked(lock)
        except OSError as problem:
            problem.filename = os.fspath(path)  # the lock is nothing that the caller knows of
            raise
        if number is None:
            message = (
                f"{os.fspath(path)} is in use by another export or command that still runs: "
                "let it end first, or use a path of its own here"
            )
            raise error(message)
        self._held.append((number, lock))

    def release(self) -> None:
        """Let others have them."""
        while self._held:
            number, lock = self._held.pop()
            if os.getpid() == self._process:
                _unlock(number, lock)
            else:  # of a forked child, which has a copy of what is its parent's
                os.close(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()  # an event loop that was closed too early runs nothing to its end


def _locked(path: str) -> int | None:
    """Return the open file of a lock that is ours now; None if it is somebody else's."""
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(number)
            # who held it may have removed it since it was opened: then it locks nothing any more
            stands = _stands(number, path)
        except BaseException:
            os.close(number)
            raise
        if locked and stands:
            return number
        os.close(number)
        if stands:
            return None


def _stands(number: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))  # noqa: PTH116  as its twin
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
        with contextlib.suppress(OSError):  # somebody has it open by now, and removes it
            os.unlink(path)  # noqa: PTH108  as the lock is known by its string

else:

    def _lock(number: int) -> bool:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in LOCKLESS:
                raise
            line = "this file system has no locks: nothing keeps two exports apart here"
            write(logging.WARNING, line)
        return True

    def _unlock(number: int, path: str) -> None:
        with contextlib.suppress(OSError):  # a file that stays locks nothing
            if _stands(number, path):
                os.unlink(path)  # noqa: PTH108  as the lock is known by its string
            fcntl.flock(number, fcntl.LOCK_UN)  # a forked child may have it open, too
        os.close(number)
