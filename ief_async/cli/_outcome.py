"""What a command tells besides its data, and how it ends."""

import sys
from collections.abc import Sequence

import attrs

from ief_async._errors import Failure
from ief_async._texts import printable
from ief_async._writing import put
from ief_async.cli._words import message_of

TOLD = 3  # failures that are told one by one


class Usage(Exception):  # noqa: N818  argparse reports it, not the library
    """Arguments that do not go together."""


@attrs.define
class Outcome:
    """What to tell about a command that did not end well.

    Attributes:
        saved: the file with the checkpoint.
        to_go_on: how to repeat the command so that it goes on from there.
    """

    saved: str | None = None
    to_go_on: list[str] = attrs.field(factory=list)


def told(failures: Sequence[Failure]) -> list[str]:
    """Return a line for each of the first failures."""
    lines = [message_of(one.error) for one in failures[:TOLD]]
    more = len(failures) - len(lines)
    return [*lines, f"… and {more} more"] if more else lines


def say(*lines: str, prefix: str = "ief-async: ") -> None:
    """Print on stderr: stdout is for data. Nothing that a server said steers the terminal."""
    put(prefix + printable("\n".join(lines), lines=True) + "\n", sys.stderr)
