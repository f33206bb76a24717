"""What may be typed: the parser of the command."""

import argparse
import math
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any, get_args

from ief_async import __version__
from ief_async._endpoints import LISTINGS, PODS, Listing
from ief_async._errors import OnDrift, OnError
from ief_async._file_formats import FILE_FORMATS, suffixes_of
from ief_async._writing import put

PRINTED = ("table", "wide", "json", "ndjson", "tsv", "name")  # to stdout, by the command itself
FORMATS = (*PRINTED, *(name for name in FILE_FORMATS if name not in PRINTED))
SHELLS = ("bash", "fish", "zsh")


class Exit(IntEnum):
    """The exit codes."""

    WHOLE = 0
    ERROR = 1
    USAGE = 2
    PARTIAL = 3
    DRIFT = 4
    AUTHENTICATION = 5
    INTERRUPTED = 130


EPILOG = """\
exit codes:
  0    complete: everything came, or the reader closed the pipe
  1    an error ended it
  2    wrong usage
  3    partial: some batches failed or items were skipped; the others came
  4    the list changed while it was read, and rows may be missing
  5    the credentials were refused, or none were found
  130  interrupted, after saving the checkpoint if there is one

Keys are never arguments. They come from HUAWEICLOUD_SDK_AK and
HUAWEICLOUD_SDK_SK, from the profile file of the official SDK, or from the
metadata of the server that this runs on.
"""


def option(name: str) -> str:
    """Return how the command spells an argument of the library."""
    return f"--{name.replace('_', '-')}"


def program() -> str:
    """Return the command as it was called."""
    name = os.path.basename(sys.argv[0])  # noqa: PTH119  no path, a word
    return "python -m ief_async" if name == "__main__.py" else "ief-async"


class _Parser(argparse.ArgumentParser):
    """A parser whose help is printed whole, even to a stream that accepts little at a time."""

    def _print_message(self, message: str, file: Any = None) -> None:
        put(message, file or sys.stderr)


def parser_of() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _Parser(
        prog="ief-async",
        description="Read a Huawei Cloud IEF fleet, concurrently and typed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"ief-async {__version__}")
    parser.set_defaults(quiet=False, verbose=0)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for listing in LISTINGS.values():
        _add_list(commands, listing)
    _add_count(commands)
    _add_demo(commands)
    _add_fake_server(commands)
    completion = commands.add_parser("completion", help="print completion for a shell")
    completion.add_argument("shell", choices=SHELLS, help="the shell")
    for command in commands.choices.values():
        command.set_defaults(parser=command)
    return parser


def _add_list(commands: Any, listing: Listing) -> None:
    name = listing.name
    command = commands.add_parser(
        name,
        usage="%(prog)s [option ...]",
        help=f"list {name}",
        description=f"List {name}: a table on a terminal, a JSON document a line when piped.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = command.add_argument_group("which")
    if name == "pods":
        _add_selectors(which)
        which.add_argument(
            "--state", action="append", metavar="STATE", help="only pods in this state; repeatable"
        )
        which.add_argument("--name", metavar="PATTERN", help="only pods with such names, as web-*")
    for filtered in listing.filters:
        which.add_argument(option(filtered), metavar="TEXT", help="a filter of the service")
    which.add_argument(
        "--max-items", type=bounded(int, least=1), metavar="N", help="read no more than N"
    )

    output = command.add_argument_group("output")
    output.add_argument(
        "-o",
        "--output",
        choices=FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)}; a table on a terminal, else ndjson; name is ids alone",
    )
    output.add_argument("--columns", metavar="A,B", help="only these fields, in this order")
    output.add_argument(
        "--query",
        metavar="JMESPATH",
        help="of json applied to the array, of ndjson and tsv to each row",
    )
    usual = [one for form in FILE_FORMATS.values() for one in suffixes_of(form, form.suffixes[0])]
    output.add_argument(
        "--file",
        metavar="PATH",
        help=f"write there, once it is complete: {' '.join(usual)}",
    )
    _add_talk(output)

    how = command.add_argument_group("how")
    if name == "pods":
        how.add_argument(
            "--checkpoint",
            metavar="FILE",
            help="keep what is done there until all is; if it exists, go on from it",
        )
        how.add_argument(
            "--restart", action="store_true", help="start over, whatever the checkpoint holds"
        )
        how.add_argument(
            "--on-error",
            choices=get_args(OnError),
            default="raise",
            help="what happens when a batch fails (%(default)s)",
        )
        how.add_argument(
            "--batch-size",
            type=bounded(int, least=1, most=1000),
            default=100,
            metavar="N",
            help="deployments in one query (%(default)s)",
        )
    how.add_argument(
        "--on-drift",
        choices=get_args(OnDrift),
        default="repair",
        help="what happens when a list changes (%(default)s)",
    )
    how.add_argument(
        "--on-bad-item",
        choices=("raise", "skip"),
        default="raise",
        help="what happens to an unreadable item (%(default)s)",
    )
    _add_pace(how, listing)
    how.add_argument(
        "--deadline",
        type=bounded(float, least=0.001),
        metavar="SECONDS",
        help="for all of it, then end with an error",
    )
    _add_where(command)


def _add_selectors(which: Any) -> None:
    text = "only of this one; repeatable; - reads ids from standard input"
    for kind in ("deployment", "node", "group"):
        which.add_argument(f"--{kind}-id", action="append", metavar="ID", help=text)


def _add_talk(group: Any) -> None:
    group.add_argument("-q", "--quiet", action="store_true", help="no progress, no warnings")
    group.add_argument("-v", "--verbose", action="count", default=0, help="log; -vv: each request")


def _add_pace(how: Any, listing: Listing) -> None:
    how.add_argument(
        "--page-size",
        type=bounded(int, least=1, most=listing.most_rows),
        default=listing.page_size,
        metavar="N",
        help="rows asked for at a time (%(default)s)",
    )
    how.add_argument(
        "--concurrency",
        type=bounded(int, least=1, most=1000),
        default=8,
        metavar="N",
        help="requests in flight (%(default)s)",
    )
    how.add_argument(
        "--rate", type=bounded(float, least=0.001), metavar="N", help="requests a second at most"
    )


def _add_where(command: Any) -> None:
    where = command.add_argument_group("where")
    where.add_argument("--region", metavar="NAME", help="such as cn-north-4")
    where.add_argument("--profile", metavar="NAME", help="section of the official SDK's file")
    where.add_argument("--project-id", metavar="ID", help="looked up if missing")
    where.add_argument("--instance-id", metavar="ID", help="a platinum instance")
    where.add_argument("--endpoint", metavar="URL", help="instead of a region")
    where.add_argument("--iam-endpoint", metavar="URL", help="where to log in and look projects up")


def _add_count(commands: Any) -> None:
    command = commands.add_parser(
        "count",
        usage="%(prog)s [option ...]",
        help="count pods without reading them",
        description="Count pods by one request for each batch, without reading them.",
    )
    _add_selectors(command.add_argument_group("which"))
    output = command.add_argument_group("output")
    output.add_argument("-o", "--output", choices=("table", "json"), default="table")
    _add_talk(output)
    how = command.add_argument_group("how")
    how.add_argument(
        "--batch-size",
        type=bounded(int, least=1, most=1000),
        default=100,
        metavar="N",
        help="deployments in one query (%(default)s)",
    )
    _add_pace(how, PODS)
    _add_where(command)


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="scan a fake fleet over real HTTP",
        description="Start a fake IEF on this machine, log in to it, list its deployments, scan "
        "them with iter_pods, and check that every pod came exactly once. Nothing leaves the "
        "machine.",
    )
    _add_fleet(demo, pods=20_000, deployments=200, latency=0.02)
    demo.add_argument("--json", action="store_true", help="print one JSON object, not a table")


def _add_fake_server(commands: Any) -> None:
    server = commands.add_parser(
        "fake-server",
        help="run a fake IEF on this machine",
        description="Run a fake IEF on this machine until it is interrupted, and print the "
        "variables that lead to it, for another shell.",
    )
    _add_fleet(server, pods=1_000, deployments=20, latency=0.0)
    server.add_argument(
        "--page-cap", type=bounded(int, least=1), metavar="N", help="the largest page it gives"
    )


def _add_fleet(command: Any, *, pods: int, deployments: int, latency: float) -> None:
    share, seconds = bounded(float, most=1.0), bounded(float, most=60.0)
    command.add_argument(
        "--pods",
        type=bounded(int),
        default=pods,
        metavar="N",
        help="pods of the fleet (%(default)s)",
    )
    command.add_argument(
        "--deployments",
        type=bounded(int, least=1),
        default=deployments,
        metavar="N",
        help="their number (%(default)s)",
    )
    command.add_argument(
        "--latency",
        type=seconds,
        default=latency,
        metavar="SECONDS",
        help="before an answer (%(default)s)",
    )
    command.add_argument(
        "--faults",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="of requests that fail, 0 to 1 (%(default)s)",
    )


def bounded(
    kind: Callable[[str], Any], *, least: float = 0, most: float = math.inf
) -> Callable[[str], Any]:
    """Return an argparse type that takes numbers of a kind between bounds."""

    def number(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most or value == math.inf:
            bounds = f">= {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
            message = f"must be {bounds}, got {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return number
