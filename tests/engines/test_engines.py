"""A scan in partitions: planned by counting, read anywhere, and complete."""

import asyncio
import contextlib
import gc
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ief_async import (
    AccessKey,
    AuthenticationError,
    CheckpointError,
    ConfigurationError,
    DriftError,
    IefSession,
    PartialScanError,
    ServerError,
)
from ief_async._paging.batches import Batch, Query
from ief_async.testing import FakeIef, Fault, Motion, Service

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
from ief_async.engines import (
    Partition,
    _Counted,
    _job,
    _pack,
    plan_pods,
    read_partition,
)

SAMPLES = Path(__file__).parents[1] / "samples"


def idle(fake):
    """Wait until the server has noticed that nobody waits for an answer any more."""
    while fake.statistics().in_flight:
        time.sleep(0.001)


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


@settings(max_examples=examples(300))
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
            with pytest.raises(ConfigurationError, match="must be the name of a source") as caught:
                plan_pods(fake.deployment_ids, credentials=wrong)
            assert "secret" not in str(caught.value)
        for options, problem in (
            ({"columns": ["nmae"]}, "has no nmae"),
            ({"workers": 0}, "workers must be"),
            ({"page_size": 0}, "page_size"),
            ({"on_drift": "mend"}, "on_drift must be one of 'repair', 'raise', 'report', 'ignore'"),
            ({"on_drift": None}, "on_drift must be one of"),
            ({"on_error": "ignore"}, "on_error must be one of 'raise', 'defer', got"),
            (
                {"on_error": "collect"},
                "a partition has no report, so nothing would say that a failed batch is missing",
            ),
        ):
            with pytest.raises(ConfigurationError, match=problem):
                plan_pods(fake.deployment_ids, **options)
            with pytest.raises(ConfigurationError, match=problem):
                plan_pods(**options)  # before the deployments are looked up
        with pytest.raises(ConfigurationError, match="give one of deployment_ids"):
            plan_pods(fake.deployment_ids, node_ids=["n"])
        with pytest.raises(
            ConfigurationError, match="deployment_ids must be an iterable of ids, got str: write"
        ):
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

        idle(fake)
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


# ---- lists in doubt ----------------------------------------------------------------------------

DOUBTFUL = {  # what a server does, and the reason that it leads to
    "hidden rows": ({"service": Service(hidden_rate=0.1)}, "short_of_count"),
    "another order each time": ({"service": Service(order="shuffled")}, "order"),
    "a count too high": ({"service": Service(counts=3_037)}, "short_of_count"),
    "one row a page": ({"page_cap": 1, "pods": 60}, "no_overlap"),
}


@pytest.mark.parametrize("oddity", DOUBTFUL)
def test_a_list_in_doubt_fails_its_partition(oddity, led, caplog):
    """By default fewer rows than there are raise an error, however few pages the list has."""
    odd, reason = DOUBTFUL[oddity]
    with FakeIef(**{"pods": 3_000, "deployments": 3} | odd) as fake:
        led(fake)
        for page_size in (100, 1000):
            partitions = plan_pods(fake.deployment_ids, page_size=page_size)
            assert {("raise", "raise")} == {(one.on_drift, one.on_error) for one in partitions}
            with pytest.raises(DriftError, match=reason) as caught:
                ids_in(partitions)
            assert reason in str(pickle.loads(pickle.dumps(caught.value)))  # noqa: S301  our own

    assert not caplog.records


@pytest.mark.parametrize("seed", range(6))
def test_a_list_that_moves_is_whole_or_an_error(seed, led):
    """Where pods come and go while partitions are read, all that stay come once, or it is said."""
    chance = random.Random(seed)
    rolling = {"least": 50, "most": 200, "new": chance.choice(["head", "tail", "anywhere"])}
    motion = chance.choice([Motion.uniform(0.2, 0.2), Motion.rolling(chance=0.1, **rolling)])
    with FakeIef(2_000, deployments=4, motion=motion, seed=seed) as fake:
        led(fake)
        partitions = plan_pods(fake.deployment_ids, page_size=50, batch_size=2)
        try:
            found = ids_in(partitions)
        except DriftError:
            found = None
        if found is not None:
            assert len(set(found)) == len(found)
            assert fake.survivors() <= set(found)


@pytest.mark.parametrize("on_drift", ["repair", "report", "ignore"])
def test_rows_are_missing_only_where_that_was_chosen(on_drift, led, caplog):
    """With another policy what the list shows is read, and the worker's log says what it lacks."""
    with FakeIef(3_000, deployments=3, service=Service(hidden_rate=0.1)) as fake:
        led(fake)
        partitions = plan_pods(fake.deployment_ids, page_size=100, on_drift=on_drift)
        caplog.clear()
        found = ids_in(pickle.loads(pickle.dumps(partitions)))  # noqa: S301  our own
        shown = {pod["id"] for pod in fake.pods} - fake.hidden_ids()

    assert shown >= set(found)
    assert on_drift == "ignore" or shown == set(found)
    (record,) = [one for one in caplog.records if "doubt" in one.msg or "may lack" in one.msg]
    assert "WARNING" == record.levelname
    reason = "unchecked" if on_drift == "ignore" else "short_of_count"
    assert reason in record.getMessage()
    assert fake.deployment_ids[0] not in caplog.text


@pytest.mark.parametrize("on_drift", ["repair", "report", "ignore"])
def test_a_calm_list_is_no_news(on_drift, led, caplog):
    """Where nothing moved nothing is logged, unless it was not even looked at."""
    with FakeIef(3_000, deployments=3) as fake:
        led(fake)
        partitions = plan_pods(fake.deployment_ids, page_size=100, on_drift=on_drift)
        assert 3_000 == len(set(ids_in(partitions)))

    assert (on_drift == "ignore") == ("unchecked" in caplog.text)


def test_deployments_in_doubt_fail_the_plan(led, caplog):
    """A list of deployments that hides some is an error, too, as their pods would be missing."""
    with FakeIef(300, deployments=250) as fake:
        led(fake)
        empty = Fault.edit(lambda _: b'{"count":250,"deployments":[]}')
        fake.intercept(
            lambda seen: (
                empty
                if seen.path.endswith("/deployments") and seen.query["offset"] != "0"
                else None
            )
        )
        with pytest.raises(DriftError, match="short_of_count"):
            plan_pods()
        assert not caplog.records
        for on_drift in ("repair", "report"):
            caplog.clear()
            partitions = plan_pods(on_drift=on_drift)
            assert 100 == sum(len(partition.ids) for partition in partitions)
            assert "short_of_count" in caplog.text


def test_failed_batches_can_wait_for_the_others(led):
    """With ``on_error="defer"`` all other batches come, then the error that says which failed."""
    with FakeIef(400, deployments=4) as fake:
        led(fake)
        bad = fake.deployment_ids[1]
        fake.intercept(
            lambda seen: (
                Fault.status(501)
                if bad in seen.query.values() and seen.query["limit"] != "1"
                else None
            )
        )
        (partition,) = plan_pods(fake.deployment_ids, batch_size=1, on_error="defer")
        rows = 0
        with pytest.raises(PartialScanError) as caught:
            for batch in read_partition(partition):
                rows += batch.num_rows
        with pytest.raises(ServerError):
            list(read_partition(attrs.evolve(partition, on_error="raise")))

    assert 300 == rows
    assert [(bad,)] == [failure.ids for failure in caught.value.failures]


def test_a_partition_checks_its_policies():
    """A partition that is made or changed by hand takes the same words as the plan."""
    with pytest.raises(ConfigurationError, match="on_drift must be one of"):
        attrs.evolve(BLANK, on_drift="mend")
    with pytest.raises(ConfigurationError, match="no report"):
        attrs.evolve(BLANK, on_error="collect")


# ---- ends --------------------------------------------------------------------------------------

BEGIN = """
    import atexit, gc, os, pickle, signal, sys, threading, time
    import attrs

    def late():
        try:
            next(held)
        except Exception as error:
            print(error)

    def too_late():
        try:
            begun()
        except Exception as error:
            print(error)

    if "late" in sys.argv:  # before ours, so they are called after it
        atexit.register(too_late)
        atexit.register(late)
    from ief_async.engines import _job, plan_pods, read_partition
    with open(sys.argv[1], "rb") as file:
        partition = pickle.load(file)

    def begun():
        reading = read_partition(partition)
        next(reading)
        return reading

    def rows(reading):
        return sum(batch.num_rows for batch in reading)

    """
FAILED = "ValueError: of the script"
ENDS = {  # how a script ends: its text, its exit code, and the end of its traceback
    "in the loop": (
        "for batch in read_partition(partition): raise ValueError('of the script')",
        1,
        FAILED,
    ),
    "by itself": ("reading = begun()", 0, ""),
    "by sys.exit": ("reading = begun(); sys.exit(7)", 7, ""),
    "by an error": ("reading = begun(); raise ValueError('of the script')", 1, FAILED),
    "by an error in a function": (
        "def main():\n    reading = begun()\n    raise ValueError('of the script')\nmain()",
        1,
        FAILED,
    ),
    "by an error in the generator": (
        "begun().throw(ValueError('of the script'))",
        1,
        FAILED,
    ),
    "held everywhere": (
        """
        import builtins
        class Holds: reading = begun()
        cycle = Holds(); cycle.itself, cycle.reading = cycle, begun(); del cycle
        builtins.reading = begun()
        sys.reading = begun()
        def function(reading=begun()): pass
        def outer(): yield from read_partition(partition)
        inside = outer(); next(inside)
        class Closes:
            def __init__(self): self.reading = begun()
            def __del__(self): self.reading.close()
        closes = Closes()
        try: begun().throw(ValueError())
        except ValueError as error: sys.last_value = error
        sys.exit(3)
        """,
        3,
        "",
    ),
    "in an event loop": (
        """
        import asyncio
        async def main():
            global held, other
            held, other = begun(), begun()
            other.close()
            sys.exit(9)
        asyncio.run(main())
        """,
        9,
        "",
    ),
    "in daemon threads": (
        """
        begins = threading.Barrier(3)
        def hold():
            reading = begun(); begins.wait(); threading.Event().wait()
        def read():
            reading = begun(); begins.wait()
            while True:
                for batch in reading: pass
                reading = read_partition(partition)
        for work in (hold, read): threading.Thread(target=work, daemon=True).start()
        begins.wait()
        """,
        0,
        "",
    ),
    "by a signal's handler": (
        """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))
        reading = begun()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        """,
        4,
        "",
    ),
    "by os._exit": ("reading = begun(); os._exit(5)", 5, ""),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Run a fleet that outlasts what is read ahead; give it and how to run a script with it."""
    file = tmp_path_factory.mktemp("ends") / "partition"
    with pytest.MonkeyPatch.context() as patch, FakeIef(40_000, deployments=10) as fake:
        for name, value in fake.environment().items():
            patch.setenv(name, value)
        (partition,) = plan_pods(fake.deployment_ids, page_size=1000, columns=["id"], concurrency=2)
        file.write_bytes(pickle.dumps(partition))

        @contextlib.contextmanager
        def start(text, *arguments, path=()):
            script = textwrap.dedent(BEGIN) + textwrap.dedent(text)
            paths = [str(one) for one in path] + [os.environ.get("PYTHONPATH", "")]
            with subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "default::ResourceWarning",
                    "-c",
                    script,
                    str(file),
                    *arguments,
                ],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  a shell's background job ignores it
            ) as process:
                try:
                    yield process
                finally:
                    with contextlib.suppress(ProcessLookupError):  # it, and what it forked
                        os.killpg(process.pid, signal.SIGKILL)

        yield fake, partition, start


def outcome(process):
    """Return the exit code of a script and what it wrote, once it ends; it has to."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def is_traceback(err, last):
    """Tell whether a script wrote one traceback that ends so, and nothing else."""
    lines = err.splitlines()
    if not last:
        return not lines
    return lines[0].startswith("Traceback") and last == lines[-1] and 1 == err.count("Traceback")


threads_start_late = pytest.mark.skipif(
    sys.version_info[:3] in {(3, 12, 0), (3, 12, 1)}, reason="no thread starts at the end there"
)


@pytest.mark.parametrize("how", ENDS)
def test_a_script_ends_with_its_readers_alive(how, fleet):
    """However a script ends, the interpreter does, with its own code and its traceback alone."""
    _, _, start = fleet
    text, code, last = ENDS[how]
    with start(text) as process:
        ended, out, err = outcome(process)

    assert (code, "") == (ended, out), err
    assert is_traceback(err, last), err


@threads_start_late
def test_handlers_of_the_end_read_what_is_alive(fleet):
    """A handler of `atexit` can read on, one that is called too late gets an error that says so."""
    _, _, start = fleet
    text = "held = begun(); other = begun(); atexit.register(lambda: print(rows(other)))"
    with start(text, "late") as process:
        code, out, err = outcome(process)

    assert (0, "") == (code, err)
    number, *said = out.splitlines()
    assert 0 < int(number) < 40_000
    assert ["the interpreter is ending: nothing can be read any more"] * 2 == said


@threads_start_late
def test_other_threads_read_on_when_the_main_one_has_ended(fleet):
    """A thread that the interpreter waits for plans and reads whole partitions meanwhile."""
    _, _, start = fleet
    text = """
        from concurrent.futures import ThreadPoolExecutor
        def late():
            threading.main_thread().join()
            print(rows(read_partition(partition)), flush=True)
            print(plan_pods(partition.ids)[0].rows, flush=True)
        def on(reading):
            print(rows(reading), flush=True)
        threading.Thread(target=late).start()
        ThreadPoolExecutor().submit(on, read_partition(partition))
        """
    with start(text) as process:
        code, out, err = outcome(process)

    assert (0, "") == (code, err)
    assert ["40000"] * 3 == out.split()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_has_no_reader_of_its_parents(fleet):
    """A child neither hangs on a parent's reader nor harms it, and reads with its own."""
    _, _, start = fleet
    text = """
        import multiprocessing, warnings
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads
        first = begun(), begun(), begun()
        held = first[0]
        def child():
            global first, held, own
            late()
            held.close()
            del first, held
            gc.collect()
            print(rows(read_partition(partition)), flush=True)
            own = begun()
        forked = multiprocessing.get_context("fork").Process(target=child)
        forked.start()
        forked.join()
        print(forked.exitcode, flush=True)
        if (pid := os.fork()) == 0:
            sys.exit(6)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        whole = rows(first[0])
        print(*(whole - rows(one) for one in first[1:]))
        """
    with start(text) as process:
        code, out, err = outcome(process)

    assert (0, "") == (code, err)
    said, *numbers = out.splitlines()
    assert said == "this reading was begun before the process was forked: begin one here"
    assert ["40000", "0", "6", "0 0"] == numbers


@pytest.mark.parametrize("what", ["plan_pods(partition.ids)", "next(read_partition(partition))"])
def test_an_interrupt_ends_what_waits(what, fleet):
    """Ctrl-C ends a script that waits for a server that says nothing, and no request is left."""
    fake, _, start = fleet
    asked = threading.Event()

    def hang(_):
        asked.set()
        return Fault.hang()

    fake.intercept(hang)
    try:
        with start(what) as process:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            code, out, err = outcome(process)
    finally:
        fake.intercept(None)

    assert (-signal.SIGINT, "") == (code, out), err
    assert is_traceback(err, "KeyboardInterrupt"), err


@pytest.mark.parametrize("source", ["blocked", "stubborn"])
def test_an_interrupt_ends_what_can_not_be_cancelled(source, fleet, tmp_path):
    """Ctrl-C ends a script whose source of keys blocks the loop, or refuses to be cancelled."""
    _, _, start = fleet
    (tmp_path / "slow_keys.py").write_text(
        textwrap.dedent("""
        import asyncio, time
        def blocked():
            print("asked", flush=True)
            time.sleep(1000)
        async def stubborn():
            print("asked", flush=True)
            while True:
                try: await asyncio.sleep(1000)
                except asyncio.CancelledError: pass
        """)
    )
    text = f"""
        _job.GRACE = 0.1
        next(read_partition(attrs.evolve(partition, credentials="slow_keys:{source}")))
        """
    with start(text, path=[tmp_path]) as process:
        assert "asked\n" == process.stdout.readline()
        process.send_signal(signal.SIGINT)
        code, out, err = outcome(process)

    assert (-signal.SIGINT, "") == (code, out), err
    assert is_traceback(err, "KeyboardInterrupt"), err


@pytest.mark.parametrize("where", ["the loop's thread", "a thread of its loop", "both of two"])
def test_the_collector_may_run_in_any_thread(where, fleet):
    """A reader that is collected by a thread of its own, or of another one, ends all the same."""
    fake, partition, _ = fleet

    class Holds:
        pass

    gc.disable()
    try:
        readers = 2 if where == "both of two" else 1
        for _ in range(readers):
            held = Holds()
            held.itself, held.reading = held, read_partition(partition)
            next(held.reading)
            del held
        jobs = list(_job._alive)
        assert readers == len(jobs)
        for job in jobs:
            if where == "a thread of its loop":
                call = (job._loop.run_in_executor, None, gc.collect)
            else:
                call = (gc.collect,)
            job._loop.call_soon_threadsafe(*call)
        for job in jobs:
            job._thread.join(60)
            assert not job._thread.is_alive()
    finally:
        gc.enable()
    idle(fake)


def test_a_reader_is_closed_by_any_thread(fleet):
    """Closed by another thread, or by a coroutine, a reader has no thread any more."""
    _, partition, _ = fleet
    threads = threading.active_count()
    readings = [read_partition(partition) for _ in range(2)]
    for reading in readings:
        next(reading)
    closer = threading.Thread(target=readings[0].close)
    closer.start()
    closer.join()

    async def close():
        readings[1].close()

    asyncio.run(close())

    assert threads == threading.active_count()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_error_thrown_in_comes_out(error, fleet):
    """What is thrown into a reader ends it, and comes out as itself."""
    fake, partition, _ = fleet
    threads = threading.active_count()
    reading = read_partition(partition)
    next(reading)
    with pytest.raises(error):
        reading.throw(error())

    assert threads == threading.active_count()
    idle(fake)


def test_no_thread_no_reader(fleet, monkeypatch):
    """Where no thread can be started that is the error, and nothing is left open."""
    _, partition, _ = fleet

    def refuse(_):
        message = "can't start new thread"
        raise RuntimeError(message)

    monkeypatch.setattr(_job._Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(read_partition(partition))
    gc.collect()  # an open loop would warn
    assert not _job._alive


def test_a_thread_of_the_loop_hands_its_error_over():
    """What fails in a thread beside the loop is raised where its result is waited for."""
    with _job._Threads() as threads, pytest.raises(ZeroDivisionError):
        threads.submit(lambda: 1 / 0).result(60)
