"""What an earlier commit of this version wrote, before its modules moved, is still read.

The files in ``samples/written_by_0.1.0`` are of a fleet as `FakeIef(600)` has it.
"""

import pickle
import shutil
from pathlib import Path

import attrs
import pytest

from ief_async import IefSession, Pod, Target, Token, scan_fleet
from ief_async.engines import read_partition
from ief_async.sinks import load_checkpoint, narrowed, write_ndjson
from ief_async.testing import FakeIef

WRITTEN = Path(__file__).parent / "samples/written_by_0.1.0"
SHAPE = {"page_size": 50, "batch_size": 2}


def session(fake):
    """Return a session with a fake."""
    return IefSession(fake.project_id, credentials=Token("fake-token"), endpoint=fake.endpoint)


async def test_a_checkpoint_that_was_written_earlier_is_resumed_from():
    """A scan goes on behind the 332 pods that its checkpoint has."""
    saved = (WRITTEN / "checkpoint.json").read_text()
    async with FakeIef(600) as fake, session(fake) as ief:
        ids = [one.id async for one in ief.iter_deployments()]
        whole = [pod.id async for pod in ief.iter_pods(ids, **SHAPE)]
        rest = [pod.id async for pod in ief.iter_pods(ids, **SHAPE, resume_from=saved)]

    assert whole[332:] == rest


async def test_a_fleets_checkpoint_that_was_written_earlier_is_resumed_from():
    """A fleet's scan goes on behind the 221 pods that its checkpoint has."""
    saved = (WRITTEN / "fleet_checkpoint.json").read_text()
    async with FakeIef(600) as fake:
        targets = [
            Target(
                project_id=fake.project_id, credentials=Token("fake-token"), endpoint=fake.endpoint
            )
        ]
        rest = [pod.id async for _, pod in scan_fleet(targets, **SHAPE, resume_from=saved)]

    assert 600 - 221 == len(set(rest))


async def test_an_export_that_was_begun_earlier_is_finished(tmp_path):
    """An export takes up the parts and the state that an earlier commit left."""
    for part in WRITTEN.glob("pods.*"):
        shutil.copy(part, tmp_path)
    size = (tmp_path / "pods.ndjson.0b1c99e0.part").stat().st_size
    model = narrowed(Pod, ["id", "state"])
    async with FakeIef(600) as fake, session(fake) as ief:
        ids = [one.id async for one in ief.iter_deployments()]
        begun = len(fake.requests)
        saved = load_checkpoint(tmp_path / "pods.state")
        stream = ief.iter_pods(ids, **SHAPE, concurrency=1, model=model, resume_from=saved)
        await write_ndjson(stream, tmp_path / "pods.ndjson", checkpoint=tmp_path / "pods.state")
        asked = len(fake.requests) - begun

    written = (tmp_path / "pods.ndjson").read_bytes()
    assert (WRITTEN / "pods.ndjson.0b1c99e0.part").read_bytes() == written[:size]
    assert 600 == len(set(written.splitlines()))
    assert asked < 600 // 50


@pytest.mark.parametrize(("at", "expected"), [(0, 600 - 332), (1, 600)])
def test_a_partition_that_was_pickled_earlier_is_read(at, expected, monkeypatch):
    """A partition that an earlier commit pickled is read, its checkpoint included."""
    monkeypatch.setenv("HUAWEICLOUD_SDK_AK", "FAKEACCESSKEY0000001")
    monkeypatch.setenv("HUAWEICLOUD_SDK_SK", "FakeSecretKeyThatOpensNothing00000000001")
    pickled = (WRITTEN / "partitions.pickle").read_bytes()
    with FakeIef(600) as fake:
        partition = pickle.loads(pickled)[at]  # noqa: S301  our own
        batches = list(read_partition(attrs.evolve(partition, endpoint=fake.endpoint)))

    assert expected == sum(batch.num_rows for batch in batches)
