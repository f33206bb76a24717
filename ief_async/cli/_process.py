"""A command from its start to its exit code: signals, log lines, and what is said at the end."""

import argparse
import asyncio
import atexit
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

from ief_async._errors import (
    AuthenticationError,
    ConfigurationError,
    DriftError,
    IefError,
    PartialScanError,
    TransportError,
)
from ief_async._texts import printable
from ief_async._writing import put
from ief_async.cli._arguments import Exit, program
from ief_async.cli._commands import COMMANDS
from ief_async.cli._inputs import read_ids
from ief_async.cli._outcome import Outcome, Usage, say, told
from ief_async.cli._words import in_options, message_of

# the requests to end that this system knows: Ctrl-C, `kill`, and a terminal that is closed
ENDING = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
FORMAT = "%(asctime)s %(levelname)s %(message)s"


def run(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Run a command that was given as these words; return its exit code."""
    atexit.register(_ignore_requests)  # what is whole by then is not to end as if it was not
    with _listening(arguments.verbose, quiet=arguments.quiet), _Requests() as requests:
        return _end(arguments, given, requests)


def _end(arguments: argparse.Namespace, given: Sequence[str], requests: "_Requests") -> int:
    """Run a command to its end, say what came of it, and return the exit code."""
    outcome = Outcome()
    code: int = Exit.USAGE
    try:
        read_ids(arguments, outcome)  # a loop would keep Ctrl-C from ending it
        code = asyncio.run(_run(arguments, outcome, requests))
    except Usage as error:
        arguments.parser.error(printable(str(error)))
    except KeyboardInterrupt:
        say("interrupted")
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if outcome.saved and os.path.exists(outcome.saved):  # noqa: PTH110  a word
            say(
                f"whoever read this has ended: what it left unread is done for {outcome.saved};",
                "to read all of it again, give --restart",
            )
        return Exit.WHOLE
    except IefError as error:
        notes = map(in_options, getattr(error, "__notes__", ()))
        say(message_of(error), *notes, *_next(error))
        code = _code_of(error)
    except OSError as error:
        say(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        code = Exit.ERROR
    if outcome.saved and code != Exit.WHOLE and os.path.exists(outcome.saved):  # noqa: PTH110  a word
        again = [part for part in given if part != "--restart"]
        how = " and ".join(outcome.to_go_on)
        say(f"what is done is kept in {outcome.saved}; to go on{how and f', {how}'}:")
        say(f"{program()} {shlex.join(again)}", prefix="  ")
    return code


async def _run(arguments: argparse.Namespace, outcome: Outcome, requests: "_Requests") -> int:
    """Run a command; a request to end it, as by ``kill``, is like an interruption."""
    task = asyncio.create_task(COMMANDS[arguments.command](arguments, outcome))
    requests.heed(task)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class _Requests:
    """The signals that ask a command to end, from its begin until its end is told.

    It ends between two steps, however often that is asked for: what is being written is written,
    and what is done is kept. Once it is over a request changes nothing any more.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[int] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def heed(self, task: "asyncio.Task[int]") -> None:
        """Let a request end this task of the running loop."""
        self._loop, self._task = asyncio.get_running_loop(), task

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for one in ENDING:
                before = signal.getsignal(one)
                if before not in {signal.SIG_IGN, None}:  # as a job in the background ignores some
                    self._before[one] = before
                    signal.signal(one, self._on_request)
        return self

    def __exit__(self, *_: object) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)

    def _on_request(self, *_: object) -> None:
        if self._task is None or self._loop is None:
            raise KeyboardInterrupt
        if not self._task.done():
            self._loop.call_soon_threadsafe(self._end, self._task)

    def _end(self, task: "asyncio.Task[int]") -> None:
        if task.cancelling():
            say("ending, once what is in hand is written; Ctrl-\\ ends it at once")
        task.cancel()


def _ignore_requests() -> None:
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)


def _code_of(error: IefError) -> int:
    if isinstance(error, AuthenticationError):
        return Exit.AUTHENTICATION
    if isinstance(error, PartialScanError):
        return Exit.PARTIAL
    if isinstance(error, DriftError):
        return Exit.DRIFT
    return Exit.USAGE if isinstance(error, ConfigurationError) else Exit.ERROR


def _next(error: IefError) -> Sequence[str]:
    """Return what the library's words leave out: what failed, and what to look at."""
    if isinstance(error, PartialScanError):
        return told(error.failures)
    if isinstance(error, TransportError):
        return ("Check the network, a proxy, and --region or --endpoint.",)
    return ()


class _Printable(logging.Formatter):
    """Lines in the words of the command that steer no terminal, whatever a server said."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(in_options(super().format(record)), lines=True)


class _OnStderr(logging.Handler):
    """Prints log lines, whatever standard error takes at a time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            put(f"{self.format(record)}\n", sys.stderr)
        except Exception:  # noqa: BLE001  no log line ends what it speaks of
            self.handleError(record)


@contextmanager
def _listening(verbose: int, *, quiet: bool) -> Iterator[None]:
    """Show the library's log lines while this lasts: warnings, and more if they are asked for."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    handler = _OnStderr()
    handler.setFormatter(_Printable(FORMAT if verbose else "ief-async: %(message)s"))
    log = logging.getLogger("ief_async")
    before = log.handlers, log.propagate, log.level
    log.handlers = [handler]
    log.propagate = False
    log.setLevel(logging.ERROR if quiet and not verbose else level)
    try:
        yield
    finally:
        log.handlers, log.propagate, level = before
        log.setLevel(level)
