"""What users' type checkers see: of every public name, of the README, of the whole package."""

import ast
import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import ief_async

pytestmark = pytest.mark.once  # starts type checkers

ROOT = Path(__file__).parent.parent
PINS = sorted((ROOT / "tests" / "typing").glob("*.py"))
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
CHECKERS = {
    "mypy": ["mypy", "--strict", "--cache-dir", "cache"],
    "pyright": ["pyright", "--level", "warning", "--pythonpath", sys.executable],
}
# pyright asks the first Python that it finds where packages are
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
NO_TYPES = """
[mypy]
[mypy-dask.*,duckdb.*,pandas.*,polars.*,pyarrow.*,pyspark.*]
ignore_missing_imports = True
follow_imports = skip
"""  # as a user of these writes it: they have none, or too many


def check(checker, *arguments, folder):
    """Run a type checker over a folder that knows nothing of this project's settings."""
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    return subprocess.run(
        [sys.executable, "-m", *CHECKERS[checker], *arguments],
        cwd=folder,
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )


def public_names():
    """Return what the public modules export, each with the name of its module."""
    modules = [ief_async] + [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(ief_async.__path__, "ief_async.")
        if "._" not in module.name
    ]
    return {
        f"{module.__name__}.{name}"
        for module in modules
        for name in getattr(module, "__all__", ())  # the command is for terminals, and has none
    }


def imports_of(code):
    """Return the modules that a piece of code imports, and the names that it takes from them."""
    nodes = list(ast.walk(ast.parse(code)))
    modules = {one.name for node in nodes if isinstance(node, ast.Import) for one in node.names}
    chosen = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{one.name}" for node in chosen for one in node.names}
    return modules | {node.module for node in chosen}, names


def test_every_public_name_is_pinned():
    """Each is imported in tests/typing, which both checkers read; the linter asks for its use."""
    pinned = set().union(*(imports_of(path.read_text())[1] for path in PINS))

    assert public_names() - pinned == set(), "to be pinned in tests/typing"


FORGOTTEN = """
import attrs
from ief_async import IefSession, Stream

@attrs.frozen
class Row:
    id: str

def read(ief: IefSession) -> Stream[Row]:
    return ief.iter_pods(["d"], page_size=10)
"""


@pytest.mark.parametrize("checker", CHECKERS)
def test_forgotten_model_is_found_by_a_type_checker(checker, tmp_path):
    """A stream of one's own class needs `model=`: without it both checkers see a stream of pods."""
    (tmp_path / "forgotten.py").write_text(FORGOTTEN)

    done = check(checker, ".", folder=tmp_path)

    assert 1 == done.returncode
    assert "Stream[Pod]" in done.stdout


@pytest.mark.parametrize("checker", CHECKERS)
def test_examples_pass_a_type_checker(checker, tmp_path):
    """Every Python example of the README does whose libraries are installed."""
    (tmp_path / "mypy.ini").write_text(NO_TYPES)
    for number, code in enumerate(EXAMPLES):
        tops = {module.partition(".")[0] for module in imports_of(code)[0]}
        if all(find_spec(top) for top in tops):
            (tmp_path / f"example_{number}.py").write_text(code)

    done = check(checker, ".", folder=tmp_path)

    assert 0 == done.returncode, done.stdout + done.stderr


def test_no_type_has_to_be_guessed(tmp_path):
    """No public name has an unknown or guessed type, but those that are made of pyspark's."""
    done = check(
        "pyright", "--verifytypes", "ief_async", "--ignoreexternal", "--outputjson", folder=tmp_path
    )

    seen = json.loads(done.stdout)["typeCompleteness"]
    vague = {
        symbol["name"]
        for symbol in seen["symbols"]
        if not (symbol["isTypeKnown"] or symbol["name"].startswith("ief_async.engines.spark."))
    }
    assert {"ief_async", "ief_async.sinks"} <= {module["name"] for module in seen["modules"]}
    assert set() == vague
