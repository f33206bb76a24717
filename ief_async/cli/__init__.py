"""The command ``ief-async``: arguments in, exit code out. Data to stdout, all else to stderr."""

import sys
from collections.abc import Sequence

from ief_async.cli._arguments import parser_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or those of the process; return its exit code.

    The codes are those of `Exit`; wrong usage is raised by argparse as `SystemExit`.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = parser_of().parse_args(given)
    from ief_async.cli._process import run  # help and completion by Tab do not wait for it

    return run(arguments, given)
