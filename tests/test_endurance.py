"""Scans that are killed and gone on with, and scans that go on for hours."""

import asyncio
import gc
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import session_with

from ief_async import RetryPolicy
from ief_async.testing import FakeIef, Motion

pytestmark = pytest.mark.once  # takes long

KILLS = 20
PAGE_SIZE = 20

# What a careful job does: the items first, then the checkpoint that says so.
JOB = f"""
import asyncio, os, sys
from pathlib import Path
from ief_async import IefSession, Token

async def main(folder, ordered, *ids):
    saved = folder / "checkpoint.json"
    resume_from = saved.read_text() if saved.exists() else None
    async with IefSession(
        os.environ["IEF_PROJECT"],
        endpoint=os.environ["IEF_ENDPOINT"],
        credentials=Token(os.environ["IEF_TOKEN"]),
    ) as ief:
        scan = ief.iter_pods(
            ids, page_size={PAGE_SIZE}, batch_size=2, concurrency=4,
            ordered=ordered == "ordered", resume_from=resume_from,
        )
        with (folder / "ids").open("a") as sink:
            async for page in scan.pages():
                sink.write("".join(pod.id + "\\n" for pod in page.items))
                sink.flush()
                new = folder / "checkpoint.new"
                new.write_text(page.checkpoint.to_json())
                new.replace(saved)

asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
"""


@pytest.mark.parametrize("order", ["ordered", "as ready"])
async def test_killed_scan_is_gone_on_with(tmp_path, order):
    """Killed twenty times, a scan delivers the whole fleet, and a page a kill again at most."""
    chance = random.Random(order)
    async with FakeIef(4_000, deployments=12, latency=0.004) as fake:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "IEF_PROJECT": fake.project_id,
            "IEF_ENDPOINT": fake.endpoint,
            "IEF_TOKEN": fake.token,
        }
        kills = 0
        while True:
            until = fake.statistics().requests + chance.randint(1, 8)
            job = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", JOB, str(tmp_path), order, *fake.deployment_ids),
                env=environment,
                stderr=asyncio.subprocess.PIPE,
            )
            while kills < KILLS and job.returncode is None:
                await asyncio.sleep(0.002)
                if fake.statistics().requests >= until:
                    await asyncio.sleep(chance.random() * 0.02)
                    job.kill()
                    kills += 1
                    break
            _, said = await job.communicate()
            if job.returncode == 0:
                break
            assert -9 == job.returncode, said.decode()
        expected = {pod["id"] for pod in fake.pods}

    came = Counter((tmp_path / "ids").read_text().split())
    assert KILLS == kills
    assert expected == came.keys()
    assert came.total() - len(came) <= KILLS * PAGE_SIZE


def held():
    """Return what a scan that leaks would leave behind: tasks, descriptors, blocks of memory."""
    gc.collect()
    descriptors = Path("/proc/self/fd")
    return (
        len(asyncio.all_tasks()),
        len(list(descriptors.iterdir())) if descriptors.exists() else 0,
        sys.getallocatedblocks(),
    )


async def test_hours_of_scanning_leave_nothing_behind():
    """7,200 requests, 5 % of them failing in ten ways, over 200 batches of a fleet that moves.

    That is two hours at a request a second, without the waits. Every pod that stays comes once in
    each scan, and tasks, descriptors and memory are after the last scan what they were after the
    first ones.
    """
    at_once = RetryPolicy(base=0, throttled_base=0, budget=10**6)
    motion = Motion.uniform(inserts=0.3, deletes=0.3)
    options = {"deployments": 200, "fault_rate": 0.05, "motion": motion, "seed": 7}
    after, doubted, batches = [], 0, 0
    async with FakeIef(6_000, **options) as fake, session_with(fake, retry=at_once) as ief:
        while fake.statistics().requests < 7_200:
            fake.mark()
            stream = ief.iter_pods(fake.deployment_ids, batch_size=1, page_size=10)
            came = Counter([pod.id async for pod in stream])
            assert 1 == max(came.values())
            reports = stream.report.batches
            batches += len(reports)
            doubts = [report for report in reports if report.drift == "unknown"]
            doubted += len(doubts)
            assert doubts or fake.survivors() <= came.keys()
            del came, stream, reports, doubts
            del fake.requests[:]
            after.append((*held(), fake.statistics().connections_open))

    tasks, descriptors, blocks, connections = zip(*after, strict=True)
    assert len(after) >= 4
    assert doubted <= 0.02 * batches
    # the fake has a task for each connection, and those come and go with the faults
    assert tasks[-1] - connections[-1] <= tasks[1] - connections[1]
    assert descriptors[-1] <= max(descriptors[:3]) + 2 * 8  # each side of the pool's connections
    assert connections[-1] <= 8 + 1
    assert blocks[-1] <= 1.1 * blocks[1]
