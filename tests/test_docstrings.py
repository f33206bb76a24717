"""The examples in docstrings run as they stand, and every entry point has one.

An example is the ``Example:`` section of a docstring: plain indented code, or what is indented
behind a line that ends in ``::``. It may await. It finds a session `ief` with a running `FakeIef`
called `fake`, the ids of its fleet as `deployment_ids` (or `ids`), `node_ids` and `group_ids`, the
official SDK's variables set for it, and the public names of `ief_async` and of its own module. One
of Spark finds `spark` and `deployment_ids`, and is run by `test_spark`, which has a JVM.
"""

import ast
import asyncio
import importlib
import inspect
import re
import textwrap

import pytest
from conftest import session_with

from ief_async.testing import FakeIef

pytestmark = (
    pytest.mark.once
)  # what the examples do, their modules' tests show on every interpreter

MODULES = (
    "ief_async",
    "ief_async.sinks",
    "ief_async.engines",
    "ief_async.engines.dask",
    "ief_async.engines.spark",
    "ief_async.otel",
    "ief_async.testing",
)
NEEDED = {
    "ief_async.sinks": "pyarrow",
    "ief_async.engines": "pyarrow",
    "ief_async.engines.dask": "dask",
    "ief_async.otel": "opentelemetry",
}
ENTRY_POINTS = {
    "ief_async.IefSession",
    "ief_async.IefSession.count_pods",
    "ief_async.IefSession.from_env",
    "ief_async.IefSession.iter_deployments",
    "ief_async.IefSession.iter_groups",
    "ief_async.IefSession.iter_instances",
    "ief_async.IefSession.iter_nodes",
    "ief_async.IefSession.iter_pods",
    "ief_async.IefSession.list_pods",
    "ief_async.IefSession.statistics",
    "ief_async.IefSession.with_options",
    "ief_async.Stream",
    "ief_async.Stream.checkpoint",
    "ief_async.Stream.pages",
    "ief_async.scan_fleet",
    "ief_async.engines.Partition",
    "ief_async.engines.dask.read_pods",
    "ief_async.engines.plan_pods",
    "ief_async.engines.read_partition",
    "ief_async.engines.spark.IefPods",
    "ief_async.engines.spark.read_pods",
    "ief_async.otel.observer",
    "ief_async.sinks.arrow_schema",
    "ief_async.sinks.load_checkpoint",
    "ief_async.sinks.narrowed",
    "ief_async.sinks.read_table",
    "ief_async.sinks.record_batches",
    "ief_async.sinks.save_checkpoint",
    "ief_async.sinks.write_arrow",
    "ief_async.sinks.write_ndjson",
    "ief_async.sinks.write_parquet",
    "ief_async.testing.FakeIef",
}
SECTION = re.compile(r"^Examples?:\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)


def public_objects():
    """Give every public class, method and function by its full name."""
    for module in map(importlib.import_module, MODULES):
        for name in module.__all__:
            found = getattr(module, name)
            yield f"{module.__name__}.{name}", found
            if inspect.isclass(found):
                for own in sorted(vars(found)):
                    if not own.startswith("_") and callable(getattr(found, own)):
                        yield f"{module.__name__}.{name}.{own}", getattr(found, own)


def example_of(found):
    """Return the code of an object's example, or None."""
    section = SECTION.search(f"{inspect.getdoc(found) or ''}\n")
    if section is None:
        return None
    text = textwrap.dedent(section[1])
    if "::" not in re.findall(r"::$", text, re.MULTILINE):
        return text
    blocks = re.findall(r"^.*::\n\n?((?:[ ]+.*\n|\n)+)", text, re.MULTILINE)
    return "\n".join(map(textwrap.dedent, blocks))


EXAMPLES = {name: code for name, one in public_objects() if (code := example_of(one)) is not None}
ON_SPARK = {name: code for name, code in EXAMPLES.items() if ".spark." in name}


def test_every_entry_point_has_an_example():
    """Whatever a user starts from shows how it is used."""
    assert {one for one, _ in public_objects()} >= ENTRY_POINTS
    assert EXAMPLES.keys() >= ENTRY_POINTS


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Run a fake fleet, to which the official variables lead, in a folder of the test's own."""
    with FakeIef(60, deployments=3, instances=1) as running:
        for name, value in running.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield running


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - ON_SPARK.keys()))
async def test_example_runs_as_it_stands(name, fake):
    """The example of a docstring is complete and raises nothing."""
    module = max((one for one in MODULES if name.startswith(f"{one}.")), key=len)
    if module in NEEDED:
        pytest.importorskip(NEEDED[module], reason=f"{NEEDED[module]} is not installed")
    names = {}
    for one in map(importlib.import_module, ("ief_async", module)):
        names |= {public: getattr(one, public) for public in one.__all__}
    code = compile(EXAMPLES[name], name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with session_with(fake) as ief:
        ids = ("deployment_ids", "node_ids", "group_ids")
        names |= {"fake": fake, "ief": ief} | {one: getattr(fake, one) for one in ids}
        names |= {"ids": fake.deployment_ids}
        if "asyncio.run(" in EXAMPLES[name]:  # a whole program, which has a loop of its own
            await asyncio.to_thread(exec, code, names)
            return
        ended = eval(code, names)  # noqa: S307  what the documentation tells users to run
        if inspect.isawaitable(ended):
            await ended
