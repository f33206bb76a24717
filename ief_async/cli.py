"""The command ``ief-async``: arguments in, exit code out. Data to stdout, all else to stderr."""

import argparse
import asyncio
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ief_async._credentials import PasswordCredentials
from ief_async._errors import IefError
from ief_async._session import IefSession
from ief_async._stream import ScanProgress

OK, FAILED, INTERRUPTED = 0, 1, 130
LINE = "\r\x1b[K"  # back to the beginning of the line, and clear it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or those of the process; return its exit code.

    0: every pod came exactly once; 1: it did not, or an error ended the scan; 2: wrong usage
    (raised by argparse as `SystemExit`); 130: interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return asyncio.run(_demo(arguments))
    except IefError as error:
        print(f"ief-async: {error}", *getattr(error, "__notes__", ()), sep="\n", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("ief-async: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ief-async", description="Read a Huawei Cloud IEF fleet, concurrently and typed."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="scan a fake fleet over real HTTP",
        description="Start a fake IEF on this machine, log in to it, list its deployments, scan "
        "them with iter_pods, and check that every pod came exactly once. Nothing leaves the "
        "machine.",
    )
    whole, share, seconds = _bounded(int), _bounded(float, most=1.0), _bounded(float, most=60.0)
    demo.add_argument("--pods", type=whole, default=20_000, help="pods of the fleet (%(default)s)")
    demo.add_argument(
        "--deployments", type=_bounded(int, least=1), default=200, help="their number (%(default)s)"
    )
    demo.add_argument(
        "--latency", type=seconds, default=0.02, help="seconds before an answer (%(default)s)"
    )
    demo.add_argument(
        "--faults",
        type=share,
        default=0.0,
        help="share of requests that fail, 0 to 1 (%(default)s)",
    )
    demo.add_argument("--json", action="store_true", help="print one JSON object, not a table")
    return parser


def _bounded(
    kind: Callable[[str], Any], *, least: float = 0, most: float = math.inf
) -> Callable[[str], Any]:
    """Return an argparse type that takes numbers of a kind between bounds."""

    def number(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most or value == math.inf:
            bounds = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
            message = f"takes {bounds}, but was given {text}"
            raise argparse.ArgumentTypeError(message)
        return value

    return number


async def _demo(arguments: argparse.Namespace) -> int:
    from ief_async.testing import FakeIef

    states: Counter[str] = Counter()
    ids: set[str] = set()
    fake = FakeIef(
        arguments.pods,
        deployments=arguments.deployments,
        latency=arguments.latency,
        fault_rate=arguments.faults,
    )
    async with (
        fake,
        IefSession(
            region=fake.region,
            endpoint=fake.endpoint,
            iam_endpoint=fake.iam_endpoint,
            credentials=PasswordCredentials(
                domain=fake.domain, user=fake.user, password=fake.password
            ),
        ) as ief,
        ief.iter_pods(ief.iter_deployments(), concurrency=16) as scan,
    ):
        async for page in scan.pages():
            _show(scan.progress)
            states.update(pod.state or "(none)" for pod in page.items)
            ids.update(pod.id for pod in page.items)
        report = scan.report
        result = {
            "pods": report.items,
            "distinct": len(ids),
            "expected": len(fake.pods),
            "requests": ief.statistics().requests,
            "retries": ief.statistics().retries,
            "seconds": round(report.elapsed, 3),
            "pods_per_second": round(report.items / report.elapsed) if report.elapsed else 0,
            "states": dict(states.most_common()),
        }
    _show(None)
    print(json.dumps(result) if arguments.json else _table(result))
    exact = result["pods"] == result["distinct"] == result["expected"]
    return OK if exact and report.complete else FAILED


def _show(now: ScanProgress | None) -> None:
    """Write how far a scan is over the last such line of a terminal; None clears the line."""
    if not sys.stderr.isatty():
        return
    text = LINE
    if now is not None:
        part = "" if now.fraction is None else f" of {now.expected_items}, {now.fraction:.0%}"
        text += f"{now.items} pods{part}, {now.retries} retries, {now.elapsed:.1f} s"
    print(text, end="", file=sys.stderr, flush=True)


def _table(result: dict[str, Any]) -> str:
    """Return the result of a demo for reading: pods by state, then what it took."""
    rows = [
        *result["states"].items(),
        ("all pods", result["pods"]),
        ("distinct ids", result["distinct"]),
    ]
    rows += [(name.replace("_", " "), result[name]) for name in ("requests", "retries", "seconds")]
    rows.append(("pods per second", result["pods_per_second"]))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value:>10,}" for name, value in rows]
    lines.insert(len(result["states"]), "-" * (width + 12))
    return "\n".join(lines)
