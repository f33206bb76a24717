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
from conftest import public_kinds, session_with

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
# besides each function, method of a session and kind of credentials
STARTS = {
    "ief_async.IefSession",
    "ief_async.Stream",
    "ief_async.Stream.checkpoint",
    "ief_async.Stream.pages",
    "ief_async.engines.Partition",
    "ief_async.engines.spark.IefPods",
    "ief_async.testing.FakeIef",
}
CLOSING = {"ief_async.IefSession.aclose"}  # which `async with` does in each example
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
    public = dict(public_objects())
    functions = {
        name
        for name, found in public.items()
        if inspect.isfunction(found) and name.rpartition(".")[0] in MODULES
    }
    methods = {name for name in public if name.startswith("ief_async.IefSession.")}
    kinds = {f"ief_async.{kind.__name__}" for kind in public_kinds()}

    assert public.keys() >= STARTS
    assert STARTS | functions | kinds | methods - CLOSING <= EXAMPLES.keys()


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
