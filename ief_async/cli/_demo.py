"""The demonstration: a fake fleet, read from login to the last pod."""

import argparse
import json
from collections import Counter
from typing import Any

from ief_async._auth import PasswordCredentials
from ief_async._session import IefSession
from ief_async.cli._arguments import Exit
from ief_async.cli._output import show
from ief_async.cli._progress import bar_of, shown


async def demo(arguments: argparse.Namespace) -> int:
    """Read a fake fleet, and tell whether every pod came exactly once."""
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
        shown(scan, bar_of(quiet=False)),
    ):
        async for page in scan.pages():
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
    show(json.dumps(result) if arguments.json else _table(result))
    exact = result["pods"] == result["distinct"] == result["expected"]
    return Exit.WHOLE if exact and report.complete else Exit.ERROR


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
