"""The shape of the package itself."""

import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ief_async

pytestmark = pytest.mark.once  # starts processes

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = sorted(
    module.name
    for module in pkgutil.iter_modules(ief_async.__path__, "ief_async.")
    if module.name != "ief_async.__main__"
)


def run(code):
    """Run a piece of code in an interpreter of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=False, capture_output=True, text=True
    )


def test_every_public_name_is_there():
    """Tab completion and ``import *`` show what __all__ promises, sorted, and each can be had."""
    assert sorted(ief_async.__all__) == ief_async.__all__
    assert {*ief_async.__all__} <= {*dir(ief_async)}
    names = run("from ief_async import *; print(*[name for name in dir() if name[0] != '_'])")
    assert ief_async.__all__ == names.stdout.split()
    for name in ief_async.__all__:
        assert name == getattr(ief_async, name).__name__.rpartition(".")[2]
    with pytest.raises(AttributeError, match="'ief_async' has no attribute 'Poodle'"):
        _ = ief_async.Poodle


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_alone(module):
    """Each module can be the first one imported, without a warning."""
    assert ("", 0) == ((done := run(f"import {module}")).stderr, done.returncode)


LIBRARIES = {"aiohttp", "attrs", "backoff", "cattrs", "msgspec"}
# cattrs is for rows and models that msgspec refuses, and backoff for retries
SCANNING = {"aiohttp", "attrs", "msgspec"}


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("import ief_async", set()),
        ("from ief_async import IefError", {"attrs"}),
        ("from ief_async import Pod", {"attrs"}),
        ("from ief_async.cli._arguments import parser_of; parser_of().format_help()", {"attrs"}),
        ("from ief_async import IefSession", SCANNING),
        ("from ief_async import scan_fleet", SCANNING),
    ],
)
def test_import_loads_what_is_needed(code, needed):
    """A name brings the libraries that it needs; no fake server, test framework or extra."""
    loaded = set(run(f"{code}; import sys; print(*sys.modules)").stdout.split())

    extras = {"opentelemetry", "pyarrow", "rich", "jmespath", "yaml", "dask", "pyspark"}
    assert needed == LIBRARIES & loaded
    assert not {"ief_async.testing", "ief_async.otel", "ief_async.sinks", "pytest"} & loaded
    assert not extras & loaded
    assert ("ief_async._session" in loaded) == (needed == SCANNING)


def test_version_is_said_once():
    """The installed distribution has the version of the package."""
    assert importlib.metadata.version("ief-async") == ief_async.__version__


def test_changelog_has_the_version():
    """The newest release in the CHANGELOG is the package's version."""
    releases = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert ief_async.__version__ == releases[0]


def test_package_is_typed_and_documented():
    """The marker for type checkers is there, and every public name has a docstring."""
    assert (ROOT / "ief_async" / "py.typed").exists()
    for name in ief_async.__all__:
        assert getattr(ief_async, name).__doc__, name


def test_every_dependency_has_a_lower_bound():
    """Run-time dependencies are five, each with the bound that the checks install."""
    assert ["aiohttp", "attrs", "backoff", "cattrs", "msgspec"] == [
        re.match(r"\w+", one)[0] for one in PROJECT["dependencies"]
    ]
    assert all(re.search(r">=\d", one) for one in PROJECT["dependencies"])


def test_fixture_is_an_installed_plugin(pytestconfig):
    """Pytest finds the fixture `fake_ief` without being told."""
    assert pytestconfig.pluginmanager.get_plugin("ief_async") is not None


async def test_fixture_is_a_running_fake(fake_ief):
    """The fixture gives a fake server that answers."""
    async with ief_async.IefSession(
        fake_ief.project_id,
        credentials=ief_async.Token(fake_ief.token),
        endpoint=fake_ief.endpoint,
    ) as ief:
        assert len(fake_ief.pods) == len(await ief.iter_pods(fake_ief.deployment_ids).collect())


def test_top_level_is_as_it_was_drawn():
    """The project has its few files and folders, and nothing else."""
    top = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}

    assert {"CHANGELOG.md", "README.md", "benchmarks", "ief_async", "pyproject.toml", "tests"} == (
        top - {"build", "dist", "PKG-INFO"}  # made by tools, and not kept
    )
