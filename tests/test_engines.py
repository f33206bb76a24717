"""A scan in partitions: planned by counting, read anywhere, and complete."""

import asyncio
import gc
import json
import os
import pickle
import threading
import time
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ief_async import (
    AccessKey,
    AuthenticationError,
    CheckpointError,
    ConfigurationError,
    IefSession,
    ServerError,
)
from ief_async._batches import Batch, Query
from ief_async.testing import FakeIef, Fault

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
from ief_async.engines import (
    Partition,
    _Counted,
    _pack,
    plan_pods,
    read_partition,
)

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def led(monkeypatch, tmp_path):
    """Give what leads this process and its children to a fake."""
    (tmp_path / "workers").mkdir()

    def lead(fake):
        for name, value in fake.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WORKERS", str(tmp_path / "workers"))
        monkeypatch.syspath_prepend(str(SAMPLES))
        return fake

    return lead


def ids_in(partitions):
    """Return the ids of all pods of partitions, in order."""
    return [
        identity
        for partition in partitions
        for batch in read_partition(partition)
        for identity in batch["id"].to_pylist()
    ]


def paths(fake):
    """Return how many requests for pods there were, of heads and of pages."""
    asked = [request.query for request in fake.requests if request.path.endswith("/pods")]
    heads = sum(query["limit"] == "1" for query in asked)
    return heads, len(asked) - heads


# ---- planning ----------------------------------------------------------------------------------


def test_partitions_hold_the_fleet(led):
    """Every pod is in one partition, and planning reads none."""
    with FakeIef(6_000, deployments=60) as fake:
        led(fake)
        partitions = plan_pods(fake.deployment_ids, page_size=20, batch_size=10)
        heads, pages = paths(fake)
        found = ids_in(partitions)
        pods = [pod["id"] for pod in fake.pods]

    assert 0 == pages < heads
    assert sorted(pods) == sorted(found)
    assert 6_000 == sum(partition.rows for partition in partitions)
    assert all(50 <= partition.pages <= 100 for partition in partitions[:-1])
    assert list(fake.deployment_ids) == [one for part in partitions for one in part.ids]


def test_a_project_is_found_by_its_deployments(led):
    """Without ids all deployments of the project are read."""
    with FakeIef(300) as fake:
        led(fake)
        (partition,) = plan_pods()

    assert set(fake.deployment_ids) == set(partition.ids)


@pytest.mark.parametrize("kind", ["node_ids", "group_ids"])
def test_nodes_and_groups_are_planned_likewise(kind, led):
    """Partitions of nodes, and of groups, hold their pods."""
    with FakeIef(300) as fake:
        led(fake)
        partitions = plan_pods(**{kind: getattr(fake, kind)})
        found = ids_in(partitions)
        pods = [pod["id"] for pod in fake.pods if pod["node_id"] or kind == "group_ids"]

    assert sorted(pods) == sorted(found)


def test_one_large_deployment_is_one_partition(led):
    """The pods of one deployment are never divided."""
    with FakeIef(900, deployments=2) as fake:
        led(fake)
        partitions = plan_pods(fake.deployment_ids, page_size=2)

    assert [(one,) for one in fake.deployment_ids] == [one.ids for one in partitions]
    assert all(partition.pages > 100 for partition in partitions)


def test_nothing_is_nothing(led):
    """Without ids there is no partition, and no request for pods."""
    with FakeIef(0) as fake:
        led(fake)
        assert () == plan_pods([])
        assert 0 == fake.statistics().requests


BLANK = Partition(
    ids=(),
    selector="node_id",
    credentials="env",
    project_id=None,
    region=None,
    endpoint=None,
    iam_endpoint=None,
    instance_id=None,
    columns=None,
    page_size=1,
    batch_size=1,
    concurrency=1,
    requests_per_second=None,
    rows=0,
    pages=0,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 150), max_size=40))
def test_packing_keeps_all_in_order(pages):
    """What is packed is what was counted, in its order, and no more than fits."""
    counted = [
        _Counted(Batch(Query("node_id", (str(at),))), one * 3, one) for at, one in enumerate(pages)
    ]

    packed = list(_pack(BLANK, counted, 0))

    assert [str(at) for at in range(len(pages))] == [one for some in packed for one in some.ids]
    assert sum(pages) * 3 == sum(one.rows for one in packed)
    assert all(one.pages <= 100 or len(one.ids) == 1 for one in packed)
    together = [one.pages + two.pages for one, two in pairwise(packed)]
    assert all(both > 50 for both in together)


def test_a_partition_travels(led):
    """A partition pickles, and neither that nor its repr has a key in it."""
    with FakeIef(30) as fake:
        led(fake)
        (partition,) = plan_pods(fake.deployment_ids, columns=["id", "state"])
        sent = pickle.dumps(partition)
        shown = repr(partition) + repr(sent)

    assert partition == pickle.loads(sent)  # noqa: S301  our own
    assert hash(partition) == hash(pickle.loads(sent))  # noqa: S301  our own
    assert fake.secret_key not in shown
    assert fake.access_key not in shown


def test_the_rate_is_divided(led):
    """Each partition has its share of what all workers may send."""
    with FakeIef(30) as fake:
        led(fake)
        (partition,) = plan_pods(fake.deployment_ids, requests_per_second=60, workers=4)
        (free,) = plan_pods(fake.deployment_ids, workers=4)

    assert 15 == partition.requests_per_second
    assert free.requests_per_second is None


def test_what_a_scan_did_not_finish_is_planned(led):
    """From a scan's checkpoint only the rest is planned, and a batch goes on where it was left."""

    async def begin(fake):
        done = []
        async with IefSession.from_env() as ief:
            stream = ief.iter_pods(fake.deployment_ids, page_size=20, batch_size=2)
            async for page in stream.pages():
                done += [pod.id for pod in page.items]
                if len(done) > 700:
                    break
            done = done[: -len(page.items)]  # that one was not finished with
            return done, stream.checkpoint()

    with FakeIef(2_000) as fake:
        led(fake)
        done, checkpoint = asyncio.run(begin(fake))
        for given in (checkpoint, checkpoint.to_json()):
            partitions = plan_pods(
                fake.deployment_ids, page_size=20, batch_size=2, resume_from=given
            )
            rest = ids_in(partitions)
            pods = [pod["id"] for pod in fake.pods]
            assert sorted(pods) == sorted(done + rest)
        assert any(partition.checkpoint for partition in partitions)
        with pytest.raises(CheckpointError):
            plan_pods(fake.deployment_ids, page_size=30, batch_size=2, resume_from=checkpoint)


def test_wrong_arguments_are_refused(led):
    """What can't be planned is an error that says what is taken, and shows no key."""
    with FakeIef(3) as fake:
        led(fake)
        key = AccessKey("an-access-key", "a-secret-key")
        for wrong in (key, "", "nothing", "json:nothing", "no.such:thing", "profile:", 3):
            with pytest.raises(ConfigurationError, match="takes the name of a source") as caught:
                plan_pods(fake.deployment_ids, credentials=wrong)
            assert "secret" not in str(caught.value)
        for options, problem in (
            ({"node_ids": ["n"]}, "at most one of deployment_ids"),
            ({"columns": ["nmae"]}, "has no nmae"),
            ({"workers": 0}, "workers takes"),
            ({"page_size": 0}, "page_size"),
        ):
            with pytest.raises(ConfigurationError, match=problem):
                plan_pods(fake.deployment_ids, **options)
        with pytest.raises(ConfigurationError, match="an iterable of ids, but was given str"):
            plan_pods("one id")
        assert 0 == fake.statistics().requests


async def test_planning_where_a_loop_runs(led):
    """In a notebook, whose cells are coroutines, planning and reading work all the same."""
    with FakeIef(30) as fake:
        led(fake)
        found = ids_in(plan_pods(fake.deployment_ids))

    assert 30 == len(found)


# ---- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["worker_keys:noted", "worker_keys:asked"])
def test_keys_come_from_where_the_partition_says(source, led, tmp_path):
    """A function on the worker is asked for the keys, a coroutine likewise."""
    with FakeIef(30) as fake:
        led(fake)
        partitions = plan_pods(fake.deployment_ids, credentials=source)
        assert 30 == len(ids_in(partitions))

    assert [str(os.getpid())] == [path.name for path in (tmp_path / "workers").iterdir()]


def test_a_profile_and_a_server_are_sources(led, monkeypatch, tmp_path):
    """A profile of the official SDK's file is a source by its name."""
    with FakeIef(30) as fake:
        led(fake)
        file = tmp_path / "credentials"
        file.write_text(f"[mine]\nak = {fake.access_key}\nsk = {fake.secret_key}\n")
        monkeypatch.setenv("HUAWEICLOUD_SDK_CREDENTIALS_FILE", str(file))
        monkeypatch.delenv("HUAWEICLOUD_SDK_AK")
        partitions = plan_pods(
            fake.deployment_ids, credentials="profile:mine", project_id=fake.project_id
        )
        assert 30 == len(ids_in(partitions))


def test_an_ended_token_costs_one_call(led):
    """The first request goes alone: with a key that is refused there is no second."""
    with FakeIef(3_000) as fake:
        led(fake)
        (partition,) = plan_pods(fake.deployment_ids, page_size=100)
        before = fake.statistics().requests
        wrong = attrs.evolve(partition, credentials="worker_keys:ended", project_id=fake.project_id)
        with pytest.raises(AuthenticationError):
            next(read_partition(wrong))

        assert 1 == fake.statistics().requests - before


def test_columns_are_all_that_is_read(led):
    """A partition of some columns has those, and its batches have its schema."""
    with FakeIef(30) as fake:
        led(fake)
        (partition,) = plan_pods(fake.deployment_ids, columns=("state", "created_at"))
        batches = list(read_partition(partition))

    assert ["state", "created_at", "created_at_text"] == partition.schema.names
    assert all(partition.schema == batch.schema for batch in batches)
    assert 30 == sum(batch.num_rows for batch in batches)


@pytest.mark.parametrize("how", ["close", "collect", "unread"])
def test_a_reader_can_be_left(how, led):
    """Closed, collected or left, a reader has no thread and no request any more."""
    threads = threading.active_count()
    with FakeIef(20_000, latency=0.01) as fake:
        led(fake)
        (partition, *_) = plan_pods(fake.deployment_ids, page_size=200)
        reading = read_partition(partition)
        if how != "unread":
            next(reading)
        if how == "close":
            reading.close()
        del reading
        gc.collect()

        while fake.statistics().in_flight:  # which the fake notices in a thread of its own
            time.sleep(0.001)
        assert threads + 1 == threading.active_count()  # the fake's own


def test_an_error_comes_out_as_itself(led):
    """What ends the scan is raised where the partition is read, and pickles."""
    with FakeIef(3_000) as fake:
        led(fake)
        (partition,) = plan_pods(fake.deployment_ids, page_size=100)
        fake.script(None, Fault.status(501))
        with pytest.raises(ServerError) as caught:
            list(read_partition(partition))

    assert 501 == pickle.loads(pickle.dumps(caught.value)).status  # noqa: S301  our own
    assert json.dumps(caught.value.__notes__)


def test_reading_again_gives_the_same(led):
    """A partition that is read twice, as after a failure, gives the same pods."""
    with FakeIef(3_000) as fake:
        led(fake)
        partitions = plan_pods(fake.deployment_ids, page_size=100)
        reading = read_partition(partitions[0])
        next(reading)
        reading.close()

        assert ids_in(partitions) == ids_in(partitions)
