"""What each command does: a coroutine that returns the exit code."""

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import attrs

from ief_async._endpoints import LISTINGS, Listed
from ief_async.cli._arguments import Exit
from ief_async.cli._completion import COMPLETIONS
from ief_async.cli._demo import demo
from ief_async.cli._inputs import session_of_arguments
from ief_async.cli._list import list_rows
from ief_async.cli._outcome import Outcome
from ief_async.cli._output import show


async def _count(arguments: argparse.Namespace, _: Outcome) -> int:
    ids = arguments.ids
    options: dict[str, Any] = {
        "page_size": arguments.page_size,
        "batch_size": arguments.batch_size,
        "concurrency": arguments.concurrency,
    }
    async with session_of_arguments(arguments) as ief:
        if ids is None:
            found = await ief.count_pods(ief.iter_deployments(model=Listed), **options)
        else:
            selected: dict[str, Any] = {ids[0]: ids[1]}
            found = await ief.count_pods(**selected, **options)
    if arguments.output == "json":
        show(json.dumps(attrs.asdict(found)))
    else:
        show(f"pods              {found.total:>12,}\npages of a scan   {found.requests:>12,}")
    return Exit.WHOLE


async def _demo(arguments: argparse.Namespace, _: Outcome) -> int:
    return await demo(arguments)


async def _fake_server(arguments: argparse.Namespace, _: Outcome) -> int:
    from ief_async.testing import FakeIef

    fake = FakeIef(
        arguments.pods,
        deployments=arguments.deployments,
        latency=arguments.latency,
        fault_rate=arguments.faults,
        page_cap=arguments.page_cap,
    )
    async with fake:
        lines = [f"export {name}={value}" for name, value in fake.environment().items()]
        lines.append(f"# {len(fake.pods):,} pods at {fake.endpoint}; ends with Ctrl-C")
        show("\n".join(lines))
        await asyncio.Event().wait()
    return Exit.WHOLE


async def _completion(arguments: argparse.Namespace, _: Outcome) -> int:
    show(COMPLETIONS[arguments.shell]())
    return Exit.WHOLE


COMMANDS: dict[str, Callable[[argparse.Namespace, Outcome], Coroutine[Any, Any, int]]] = {
    **dict.fromkeys(LISTINGS, list_rows),
    "count": _count,
    "demo": _demo,
    "fake-server": _fake_server,
    "completion": _completion,
}
