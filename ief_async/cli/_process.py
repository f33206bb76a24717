"""A command from its start to its exit code: signals, log lines, and what is said at the end."""

import argparse
import asyncio
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ief_async._errors import (
    AuthenticationError,
    ConfigurationError,
    DriftError,
    IefError,
    PartialScanError,
    TransportError,
)
from ief_async._texts import printable
from ief_async.cli._arguments import Exit, program
from ief_async.cli._commands import COMMANDS, Outcome, Usage, read_ids, say, told

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def run(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Run a command that was given as these words; return its exit code."""
    with _listening(arguments.verbose, quiet=arguments.quiet):
        return _end(arguments, given)


def _end(arguments: argparse.Namespace, given: Sequence[str]) -> int:
    """Run a command to its end, say what came of it, and return the exit code."""
    outcome = Outcome()
    code: int = Exit.USAGE
    try:
        read_ids(arguments, outcome)  # a loop would keep Ctrl-C from ending it
        code = asyncio.run(_run(arguments, outcome))
        sys.stdout.flush()
    except Usage as error:
        arguments.parser.error(printable(str(error)))
    except KeyboardInterrupt:
        say("interrupted")
        code = Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.WHOLE
    except IefError as error:
        say(str(error), *getattr(error, "__notes__", ()), *_next(error))
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


async def _run(arguments: argparse.Namespace, outcome: Outcome) -> int:
    """Run a command; a request to end it, as by ``kill``, is like an interruption."""
    task = asyncio.create_task(COMMANDS[arguments.command](arguments, outcome))
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


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
    """Lines that steer no terminal, whatever a server said."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), lines=True)


@contextmanager
def _listening(verbose: int, *, quiet: bool) -> Iterator[None]:
    """Show the library's log lines while this lasts: warnings, and more if they are asked for."""
    level = {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG)
    handler = logging.StreamHandler()
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
