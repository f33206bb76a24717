"""The README's examples run as they stand there, and its commands are those of the checks."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ief_async
from ief_async.testing import FakeIef, Fault

pytestmark = pytest.mark.once  # starts processes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
USES = ("In an application", "In a data pipeline", "Many projects and regions")


def lines_expected(use, pods):
    """Return what an example prints of this fleet, one line a pod or fewer."""
    unwell = [f"{pod['name']} {pod['state']} {pod['node_id']}" for pod in pods]
    return {
        "In an application": [line for line in unwell if " RUNNING " not in line],
        "In a data pipeline": [pod["id"] for pod in pods],
        "Many projects and regions": [f"an-instance {pod['id']} {pod['state']}" for pod in pods],
    }[use]


@pytest.mark.parametrize("use", USES)
async def test_example_runs_as_it_stands(use, tmp_path):
    """Each example, saved as a script and run against a fleet, prints that fleet."""
    async with FakeIef(400, deployments=4) as fake:
        environment = {
            **{key: text for key, text in os.environ.items() if "HUAWEICLOUD" not in key},
            "HOME": str(tmp_path),
            "HUAWEICLOUD_SDK_AK": fake.access_key,
            "HUAWEICLOUD_SDK_SK": fake.secret_key,
            "HUAWEICLOUD_SDK_IAM_ENDPOINT": fake.iam_endpoint,
            "HUAWEICLOUD_SDK_REGION_IEF_CN_NORTH_4": fake.endpoint,
        }
        given = {USES[1]: fake.deployment_ids, USES[2]: ["an-instance"]}
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", blocks_of(use)[0], *given.get(use, ())],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        pods = list(fake.pods)

    printed = done.stdout.splitlines()
    expected = lines_expected(use, pods)
    assert 0 == done.returncode, done.stderr
    assert len(expected) == len(printed)
    for line in expected:
        assert any(line in one for one in printed) if use == USES[1] else line in printed


def run_example(code, fake, tmp_path):
    """Run a block of the README as a script that is led to a fake."""
    environment = {
        **{key: text for key, text in os.environ.items() if "HUAWEICLOUD" not in key},
        **fake.environment(),
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def blocks_of(section):
    """Return the code blocks of a section."""
    text = README.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_the_export_runs_as_it_stands(tmp_path):
    """The second example of pipelines writes a file of all pods, and leaves no state."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    with FakeIef(400, deployments=4) as fake:
        said = run_example(blocks_of("In a data pipeline")[1], fake, tmp_path)
        running = sum(pod["state"] == "RUNNING" for pod in fake.pods)

    assert f"400 pods, of which {running}\n" == said
    assert ["pods.parquet"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("reader", ["pyarrow", "polars", "duckdb", "pandas"])
async def test_tables_are_taken_as_they_are(reader):
    """Each line of the table of readers counts the pods by state."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    module = pytest.importorskip(reader, reason=f"{reader} is not installed")
    from ief_async.sinks import read_table

    line = re.search(rf"^\| {reader} \| `(.*)` \|$", README, re.MULTILINE)[1]
    async with (
        FakeIef(400) as fake,
        ief_async.IefSession(
            fake.project_id, credentials=ief_async.Token(fake.token), endpoint=fake.endpoint
        ) as ief,
    ):
        table = await read_table(ief.iter_pods(fake.deployment_ids))

    counted = eval(line, {reader: module, "table": table, "table_": table})  # noqa: S307  the line as a user types it

    running = table["state"].to_pylist().count("RUNNING")
    assert str(running) in str(counted)


@pytest.mark.parametrize(("place", "engine"), [(0, "pyarrow"), (2, "dask")])
def test_engines_run_as_they_stand(place, engine, tmp_path):
    """The examples of engines read the whole project; `test_spark` runs the one of Spark."""
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    with FakeIef(400, deployments=4) as fake:
        said = run_example(blocks_of("Spark and Dask")[place], fake, tmp_path)
        running = sum(pod["state"] == "RUNNING" for pod in fake.pods)

    assert "400 pods" in said if place == 0 else str(running) in said


def test_tests_of_a_user_run_as_they_stand(tmp_path):
    """The tests in the README pass as a file of their own, without any setting of pytest."""
    (code,) = re.findall(r"## Testing your own code\n.*?```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "test_mine.py").write_text(code)

    for plugins in ([], ["-p", "no:asyncio"]):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *plugins],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "4 passed" in done.stdout, done.stdout + done.stderr


async def test_hooks_work_as_they_stand(capsys):
    """The hook that prints does so of a real scan, and OpenTelemetry's is taken by a session."""
    section = README.partition("## Observability")[2].partition("\n## ")[0]
    printing, telemetry = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names = {}

    exec(printing, names)  # noqa: S102  what the README tells users to run
    exec(telemetry, names)  # noqa: S102  as above
    async with (
        FakeIef(50, deployments=1) as fake,
        ief_async.IefSession(
            fake.project_id,
            credentials=ief_async.Token(fake.token),
            endpoint=fake.endpoint,
            retry=ief_async.RetryPolicy(throttled_base=0),
            on_event=names["show"],
        ) as ief,
    ):
        fake.script(Fault.throttle("0"))
        await ief.iter_pods(fake.deployment_ids).collect()

    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("throttled, going on in ")
    assert second.endswith(": 50 more")
    assert isinstance(names["ief"], ief_async.IefSession)


def test_table_of_errors_names_every_error():
    """Every public error has its row, but the two roots, which the text below it explains."""
    rows = set(re.findall(r"^\| `(\w+Error)` \|", README, re.MULTILINE))
    errors = {
        name
        for name in ief_async.__all__
        if isinstance(getattr(ief_async, name), type)
        and issubclass(getattr(ief_async, name), ief_async.IefError)
    }

    assert errors - {"IefError", "ApiError"} == rows


def test_two_commands_set_themselves_up():
    """The README has two commands; each makes its environment, installs, and runs."""
    commands = re.findall(r"^```sh\n(.*?)\n```$", README, re.DOTALL | re.MULTILINE)

    assert 2 == len(commands)
    assert all(one.startswith("python3 -m venv .venv && .venv/bin/pip install") for one in commands)
    assert commands[0].endswith(".venv/bin/ief-async demo")
    assert commands[1].endswith(".ci/check")
