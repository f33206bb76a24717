"""Dask reads a fleet whole, whatever happens to its workers."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from ief_async import ConfigurationError, DriftError
from ief_async.testing import FakeIef, Service

pytest.importorskip("dask.dataframe", reason="dask is not installed")
distributed = pytest.importorskip("distributed", reason="distributed is not installed")
from ief_async.engines import plan_pods  # noqa: E402  after the lines that say whether it can be
from ief_async.engines.dask import read_pods  # noqa: E402  likewise

SAMPLES = Path(__file__).parents[1] / "samples"

# what Dask itself warns of, in its own threads, is not this library's
pytestmark = [
    pytest.mark.once,  # starts a cluster
    pytest.mark.xdist_group("dask"),  # and no more than one
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    """Run two workers that know where the keys are."""
    (tmp_path / "workers").mkdir()
    monkeypatch.setenv("WORKERS", str(tmp_path / "workers"))
    monkeypatch.syspath_prepend(str(SAMPLES))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(SAMPLES), os.environ.get("PYTHONPATH", "")])
    )
    with FakeIef(20_000, deployments=100, latency=0.02) as fake:
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
            ) as workers,
            distributed.Client(workers) as client,
        ):
            yield fake, client


def test_a_fleet_is_read_though_a_worker_is_killed(cluster, tmp_path):
    """Every pod comes once, though a worker is killed while it reads; the columns are Arrow's."""
    fake, _ = cluster
    killed = []

    def kill_one(_):
        pids = {int(path.name) for path in (tmp_path / "workers").iterdir()} - {os.getpid()}
        if not killed and pids and fake.statistics().requests > begun + 60:
            killed.append(pids.pop())
            with contextlib.suppress(ProcessLookupError):
                os.kill(killed[0], signal.SIGKILL)

    partitions = plan_pods(
        fake.deployment_ids,
        credentials="worker_keys:noted",
        columns=["id", "state"],
        page_size=100,
        batch_size=10,
    )
    begun = fake.statistics().requests
    fake.intercept(kill_one)
    pods = read_pods(partitions).compute(retries=3)

    assert 1 == len(killed)
    assert 1 < len(partitions)
    assert 20_000 == len(pods) == pods["id"].nunique()
    assert {pod["id"] for pod in fake.pods} == set(pods["id"])
    assert ["string[pyarrow]"] * 2 == [str(kind) for kind in pods.dtypes]


@pytest.mark.usefixtures("cluster")
def test_rows_that_are_hidden_fail_the_computation():
    """A list that shows fewer rows than it counts raises an error, also where tasks are retried."""
    with FakeIef(2_000, deployments=2, service=Service(hidden_rate=0.1)) as fake:
        shown = {pod["id"] for pod in fake.pods} - fake.hidden_ids()
        plan = {"endpoint": fake.endpoint, "columns": ["id"], "page_size": 100}
        doubtful = read_pods(plan_pods(fake.deployment_ids, **plan))
        with pytest.raises(DriftError, match="short_of_count"):
            doubtful.compute(retries=1)
        with pytest.raises(DriftError, match="short_of_count"):
            doubtful.compute(scheduler="threads")
        taken = read_pods(plan_pods(fake.deployment_ids, **plan, on_drift="repair"))
        assert shown == set(taken.compute()["id"])


def test_nothing_to_read_is_said():
    """Without a partition there is no frame, and the error says why."""
    with pytest.raises(ConfigurationError, match="partitions must not be empty"):
        read_pods([])
