"""Spark reads a fleet whole, whatever happens to its workers."""

import contextlib
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from test_docstrings import ON_SPARK
from test_readme import blocks_of

import ief_async
from ief_async import ConfigurationError
from ief_async.testing import FakeIef, Service

pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed")
from ief_async.engines import plan_pods  # noqa: E402  after the line that says whether it can be
from ief_async.engines.spark import IefPods, _arguments, read_pods  # noqa: E402  likewise

SAMPLES = Path(__file__).parents[1] / "samples"

pytestmark = [
    pytest.mark.once,  # starts a JVM
    pytest.mark.xdist_group("spark"),  # and no more than one
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java, and there is none"),
    # what Spark itself warns of, and leaves open, is not this library's
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """Run Spark with two workers that know where the keys are, and four tries for each task."""
    from pyspark.sql import SparkSession

    workers = tmp_path_factory.mktemp("workers")
    with pytest.MonkeyPatch.context() as patch, FakeIef(20_000, deployments=100) as fake:
        for name, value in fake.environment().items():
            patch.setenv(name, value)
        patch.setenv("WORKERS", str(workers))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(SAMPLES), os.environ.get("PYTHONPATH", "")])
        )
        patch.syspath_prepend(str(SAMPLES))
        session = (
            SparkSession.builder.master("local[2,4]")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.sql.shuffle.partitions", "2")
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
        session.dataSource.register(IefPods)
        yield session, fake, workers
        session.stop()


def test_a_fleet_is_read_though_a_worker_is_killed(spark):
    """Every pod comes once by ``spark.read``, though a worker is killed while it reads."""
    session, fake, workers = spark
    killed = []

    def kill_one(_):
        pids = {int(path.name) for path in workers.iterdir()} - {os.getpid()}
        if not killed and pids and fake.statistics().requests > begun + 60:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    begun = fake.statistics().requests
    fake.intercept(kill_one)
    rows = (
        session.read.format("ief_pods")
        .schema("id string, state string, created_at timestamp")
        .options(credentials="worker_keys:noted", page_size=100, batch_size=10, region="cn-north-4")
        .load()
        .collect()
    )
    fake.intercept(None)

    assert killed
    assert 20_000 == len(rows)
    assert {pod["id"] for pod in fake.pods} == {row.id for row in rows}
    assert "RUNNING" in {row.state for row in rows}
    assert all(row.created_at is not None for row in rows)


def test_all_columns_are_there_without_a_schema(spark):
    """The source's own schema has every field of a pod, nested, for SQL to look into."""
    session, fake, _ = spark
    pods = session.read.format("ief_pods").option("region", "cn-north-4").load()
    pods.createOrReplaceTempView("pods")
    found = session.sql("select count(distinct id) n, max(containers[0].name) c from pods").first()

    assert (20_000, fake.pods[0]["containers"][0]["name"]) == (found.n, found.c)


def test_partitions_are_read_on_older_sparks_too(spark):
    """`read_pods` needs no data source: a frame of partitions, mapped in Arrow."""
    session, fake, _ = spark
    partitions = plan_pods(fake.deployment_ids, columns=["id"], page_size=100, batch_size=10)

    rows = read_pods(session, partitions).collect()

    assert 20_000 == len(rows)
    assert {pod["id"] for pod in fake.pods} == {row.id for row in rows}


def test_a_wrong_key_costs_few_calls(spark):
    """A refused key fails the query, with one call for each try of a task."""
    session, fake, _ = spark
    before = fake.statistics().requests
    (partition, *_) = plan_pods(fake.deployment_ids[:1], page_size=100)
    planned = fake.statistics().requests - before
    import attrs

    wrong = attrs.evolve(
        partition, credentials="worker_keys:ended", project_id=fake.project_id, region="cn-north-4"
    )
    with pytest.raises(Exception, match="AuthenticationError"):
        read_pods(session, [wrong]).collect()

    assert fake.statistics().requests - before - planned <= 4


def test_rows_that_are_hidden_fail_the_query(spark):
    """A list that shows fewer rows than it counts fails its query, unless that was chosen."""
    session, _, _ = spark
    with FakeIef(500, deployments=1, service=Service(hidden_rate=0.1)) as fake:
        shown = {pod["id"] for pod in fake.pods} - fake.hidden_ids()
        source = session.read.format("ief_pods").schema("id string")
        source = source.options(endpoint=fake.endpoint, page_size=100)
        with pytest.raises(Exception, match=r"DriftError.*short_of_count"):
            source.load().collect()
        rows = source.option("on_drift", "repair").load().collect()

    assert shown == {row.id for row in rows}


def test_options_are_checked(spark):
    """An option that does not exist, a key above all, is refused by its name alone."""
    session, _, _ = spark
    source = session.read.format("ief_pods")
    with pytest.raises(
        Exception,
        match=r"an option of ief_pods must be one of .*, got ak \(keys are never options\)",
    ):
        source.option("ak", "an-access-key").load().collect()
    with pytest.raises(Exception, match="a pod has no column nmae"):
        session.read.format("ief_pods").schema("nmae string").load().collect()


def test_options_say_what_arguments_do():
    """Numbers come as text, ids as JSON or between commas."""
    said = _arguments({"deployment_ids": " a, b,", "page_size": "10", "workers": "3"})
    assert {"deployment_ids": ["a", "b"], "page_size": 10, "workers": 3} == said
    assert ["a"] == _arguments({"node_ids": '["a"]', "workers": "1"})["node_ids"]
    policies = {"on_drift": "repair", "on_error": "defer", "workers": "1"}
    assert {**policies, "workers": 1} == _arguments(policies)
    for wrong in ({"page_size": "many"}, {"node_ids": "[1"}):
        with pytest.raises(ConfigurationError, match="must be numbers, "):
            _arguments(wrong)


def test_nothing_to_read_is_said():
    """Without a partition there is no frame, and the error says why."""
    with pytest.raises(ConfigurationError, match="partitions must not be empty"):
        read_pods(None, [])


@pytest.mark.parametrize("name", sorted(ON_SPARK))
def test_examples_of_docstrings_run_as_they_stand(name, spark):
    """The example of a docstring is complete and raises nothing."""
    session, fake, _ = spark
    module = ief_async.engines.spark
    names = {one: getattr(module, one) for one in module.__all__}
    exec(ON_SPARK[name], {**names, "spark": session, "deployment_ids": fake.deployment_ids})  # noqa: S102  what the documentation tells users to run


def test_the_example_of_the_readme_runs_as_it_stands(spark, capsys):
    """It finds the session, registers the source, and counts the pods by state."""
    session, fake, _ = spark
    (example,) = (code for code in blocks_of("Spark and Dask") if "pyspark" in code)
    names = {}
    exec(example, names)  # noqa: S102  what the README tells users to run

    running = sum(pod["state"] == "RUNNING" for pod in fake.pods)
    assert session is names["spark"]
    assert f"|RUNNING|{running}|" in capsys.readouterr().out.replace(" ", "")
