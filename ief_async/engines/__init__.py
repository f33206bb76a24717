"""A scan in pieces, for engines that spread work over processes and machines.

::

    partitions = plan_pods(region="cn-north-4", requests_per_second=60, workers=4)
    for partition in partitions:  # anywhere: it pickles, and holds no secret
        for batch in read_partition(partition):
            ...

`ief_async.engines.spark` and `ief_async.engines.dask` are thin layers over these two.
Needs ``pip install 'ief-async[arrow]'``.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import attrs

from ief_async._arguments import check_choice, check_number, refuse
from ief_async._auth import EcsMetadata
from ief_async._checkpoint import Entry, Mark, Part, Run, ScanCheckpoint, fingerprint
from ief_async._endpoints import PODS, Identified, Listed
from ief_async._errors import ConfigurationError, OnDrift
from ief_async._models import Pod
from ief_async._observer import write
from ief_async._paging import Batch, Selector, requests_for
from ief_async._policies import Limits
from ief_async._scan import ID_ARGUMENTS, ScanSpec, Stream, select_ids
from ief_async._session import IefSession, scan_of
from ief_async.engines._job import Give, Job
from ief_async.sinks import arrow_schema, narrowed, record_batches

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Partition", "plan_pods", "read_partition"]

PAGES = 100  # of a partition: an engine takes 2 to 30 ms for each, a page takes as long
OnError = Literal["raise", "defer"]
OnBadItem = Literal["raise", "skip"]


def _one_of(choices: Any) -> Callable[[Any, Any, Any], None]:
    """Return an attrs validator that takes the words of a `Literal`."""

    def validate(_: Any, attribute: Any, value: Any) -> None:
        try:
            check_choice(attribute.name, value, choices)
        except ConfigurationError as error:
            message = str(error)
        else:
            return
        if value == "collect":
            message += (
                ": a partition has no report, so nothing would say that a failed batch is missing"
            )
        elif callable(value):
            message += ": a partition is pickled, and a function of this process may not be"
        raise ConfigurationError(message)

    return validate


@attrs.frozen(kw_only=True)
class Partition:
    """A piece of a scan: what one task of an engine reads, by `read_partition`.

    Made by `plan_pods`. It can be pickled, and holds no secret: of the credentials only the name of
    their source.

    Attributes:
        ids: the deployments, nodes or groups whose pods it reads.
        selector: what kind of ids they are.
        credentials: the name of the source of the keys, as for `plan_pods`.
        project_id: as for `IefSession`.
        region: as for `IefSession`.
        endpoint: as for `IefSession`.
        iam_endpoint: as for `IefSession`.
        instance_id: as for `IefSession`.
        columns: the fields of a pod that are read; None for all.
        page_size: as for `IefSession.iter_pods`.
        batch_size: as for `IefSession.iter_pods`.
        concurrency: as for `IefSession.iter_pods`.
        requests_per_second: its share of what the whole scan may send.
        on_error: what happens when a batch of ids fails, as for `plan_pods`.
        on_drift: what happens when a list changes while it is read, as for `plan_pods`.
        on_bad_item: what happens to a row that can't be read, as for `plan_pods`.
        rows: how many pods were counted when it was planned.
        pages: how many requests they take.
        checkpoint: where the reading begins, if a part of it is done.

    Example:
        ::

            (partition,) = plan_pods(deployment_ids)
            print(f"{partition.rows} pods: {partition.schema.names}")
    """

    ids: tuple[str, ...]
    selector: Selector
    credentials: str
    project_id: str | None
    region: str | None
    endpoint: str | None
    iam_endpoint: str | None
    instance_id: str | None
    columns: tuple[str, ...] | None
    page_size: int
    batch_size: int
    concurrency: int
    requests_per_second: float | None
    on_error: OnError = attrs.field(default="raise", validator=_one_of(OnError))
    on_drift: OnDrift = attrs.field(default="raise", validator=_one_of(OnDrift))
    on_bad_item: OnBadItem = attrs.field(default="raise", validator=_one_of(OnBadItem))
    rows: int
    pages: int
    checkpoint: ScanCheckpoint | None = None

    @property
    def model(self) -> type:
        """The class that its rows are of."""
        return Pod if self.columns is None else narrowed(Pod, self.columns)

    @property
    def schema(self) -> "pa.Schema":
        """The Arrow schema of its batches."""
        return arrow_schema(self.model)


def plan_pods(
    deployment_ids: Iterable[str | Identified] | None = None,
    *,
    node_ids: Iterable[str | Identified] | None = None,
    group_ids: Iterable[str | Identified] | None = None,
    credentials: str = "env",
    project_id: str | None = None,
    region: str | None = None,
    endpoint: str | None = None,
    iam_endpoint: str | None = None,
    instance_id: str | None = None,
    columns: Sequence[str] | None = None,
    page_size: int = 1000,
    batch_size: int = 100,
    concurrency: int = 8,
    requests_per_second: float | None = None,
    on_error: OnError = "raise",
    on_drift: OnDrift = "raise",
    on_bad_item: OnBadItem = "raise",
    workers: int = 1,
    resume_from: ScanCheckpoint | str | bytes | None = None,
) -> tuple[Partition, ...]:
    """Cut a scan into partitions of 50 to 100 pages, by counting: no pod is read.

    A plain function, for a driver's script or a notebook: it blocks, and may be called where an
    event loop runs. Every id is in exactly one partition, in the order given. The pods of one id
    are never divided: a changing list can be read reliably only from its beginning, or from where a
    reader has been. So one deployment of more than 100 pages is a partition of its own.

    A partition that is read again, because it failed or its worker was killed, is read as the list
    is then: its pods are complete, and those that moved between deployments meanwhile may be in two
    partitions, or in none.

    Args:
        deployment_ids: the deployments whose pods are read; without any ids all deployments are
            looked up.
        node_ids: nodes instead.
        group_ids: node groups instead.
        credentials: the name of the source of the keys, looked up by each worker: ``"env"`` as in
            `IefSession.from_env`, ``"profile:NAME"``, ``"ecs"`` for the metadata of the server that
            the worker runs on, or ``"package.module:function"``, which is called there without
            arguments, or is an async function that the session calls. Never a key itself.
        project_id: as for `IefSession`.
        region: as for `IefSession`.
        endpoint: as for `IefSession`.
        iam_endpoint: as for `IefSession`.
        instance_id: as for `IefSession`.
        columns: fields of a pod; only these are decoded and become columns.
        page_size: as for `IefSession.iter_pods`; larger here, as nobody waits for the first pod.
        batch_size: as for `IefSession.iter_pods`.
        concurrency: requests of one partition in flight at most.
        requests_per_second: what all workers together may send; each partition has its share.
        on_error: "raise": the first batch of ids that fails ends the reading of its partition.
            "defer": the others are read first, then `PartialScanError` is raised. There is no
            "collect": it lists failures in a report, which a partition does not have.
        on_drift: "raise": a list that leaves rows in doubt, or shows fewer than it counts, fails
            with `DriftError`, after it was read again within bounds. So an engine fails or tries
            again, and never returns fewer rows in silence. "repair", "report" and "ignore" are as
            for `IefSession.iter_pods`: rows may be missing, and the worker logs a warning if so. It
            also holds for the list of deployments, if that is looked up.
        on_bad_item: "raise": a row that can't be read fails its batch of ids with `PayloadError`.
            "skip": it is left out, and the worker logs a warning with their number; so is a
            deployment without an id, where they are looked up. A function, as for
            `IefSession.iter_pods`, is refused: a partition is pickled.
        workers: how many partitions are read at a time.
        resume_from: the checkpoint of a scan by `IefSession.iter_pods` with the same ids, page and
            batch size: only what it did not finish is planned.

    Returns:
        The partitions; none if there is nothing to read.

    Raises:
        ConfigurationError: an argument can't work.
        CheckpointError: `resume_from` is of another scan.
        IefError: a request failed, after all attempts.

    Example:
        ::

            partitions = plan_pods(requests_per_second=60, workers=4)
            print(sum(partition.rows for partition in partitions), "pods")
    """
    check_number("workers", workers, least=1, whole=True)
    if columns is not None:
        columns = tuple(columns)
        narrowed(Pod, columns)
    given = {"deployment_ids": deployment_ids, "node_ids": node_ids, "group_ids": group_ids}
    listed = all(ids is None for ids in given.values())  # by the service
    selector, ids = ("deployment_ids", ()) if listed else select_ids(**given)
    limits = Limits(requests_per_second=requests_per_second)
    partition = Partition(
        ids=(),
        selector=selector,
        credentials=credentials,
        project_id=project_id,
        region=region,
        endpoint=endpoint,
        iam_endpoint=iam_endpoint,
        instance_id=instance_id,
        columns=columns,
        page_size=page_size,
        batch_size=batch_size,
        concurrency=concurrency,
        requests_per_second=requests_per_second and requests_per_second / workers,
        on_error=on_error,
        on_drift=on_drift,
        on_bad_item=on_bad_item,
        rows=0,
        pages=0,
    )
    if isinstance(ids, AsyncIterable):
        refuse(ID_ARGUMENTS[selector], "an iterable of ids", type(ids).__name__)
    several = None if listed else list(ids)
    spec = _spec(partition, (), resume_from)  # of what is counted

    async def plan(give: Give[tuple[Partition, ...]]) -> None:
        await give(await _plan(partition, spec, limits, several))

    with closing(Job(plan)) as job:  # where no other loop runs
        return job.take() or ()


async def _plan(
    partition: Partition, spec: ScanSpec[Any], limits: Limits, ids: list[Any] | None
) -> tuple[Partition, ...]:
    async with _session(partition, limits) as ief:
        scan = scan_of(ief, spec)  # never begun; it cuts the ids into batches
        if ids is None:
            listing = ief.iter_deployments(
                model=Listed, on_drift=partition.on_drift, on_bad_item=partition.on_bad_item
            )
            ids = [found.id async for found in listing]
            _warn(partition, listing)
        batches = [batch for one in ids for batch in scan.batcher.add(one)] + scan.batcher.flush()
        counted = await asyncio.gather(
            *(_count(ief, partition, batch) for batch in batches if isinstance(batch, Batch))
        )
    return tuple(_pack(partition, [one for some in counted for one in some], scan.fingerprint))


def _spec(
    partition: Partition, ids: Iterable[object], resume_from: ScanCheckpoint | str | bytes | None
) -> ScanSpec[Any]:
    """Return how a partition is read, and what of."""
    return ScanSpec(
        listing=PODS,
        selector=partition.selector,
        ids=ids,
        model=partition.model,
        page_size=partition.page_size,
        batch_size=partition.batch_size,
        concurrency=partition.concurrency,
        on_error=partition.on_error,
        on_drift=partition.on_drift,
        on_bad_item=partition.on_bad_item,
        resume_from=resume_from,
    )


@attrs.frozen
class _Counted:
    batch: Batch
    rows: int
    pages: int


async def _count(ief: IefSession, partition: Partition, batch: Batch) -> list[_Counted]:
    """Count a batch; one of too many pages is halved, as long as it has more than one id."""
    selected: dict[str, Any] = {ID_ARGUMENTS[partition.selector]: batch.query.ids}
    found = await ief.count_pods(
        **selected, page_size=partition.page_size, batch_size=len(batch.query.ids)
    )
    ids = batch.query.ids
    if found.requests > PAGES // 2 and len(ids) > 1 and batch.mark is None:
        halves = (ids[: len(ids) // 2], ids[len(ids) // 2 :])
        parts = [Batch(attrs.evolve(batch.query, ids=half)) for half in halves]
        counted = await asyncio.gather(*(_count(ief, partition, part) for part in parts))
        return [one for some in counted for one in some]
    rows = max(0, found.total - (batch.mark.offset if batch.mark else 0))
    return [_Counted(batch, rows, requests_for(rows, partition.page_size))]


def _pack(partition: Partition, counted: Sequence[_Counted], scan: int) -> Iterator[Partition]:
    """Put neighbours together until they fill a partition."""
    together: list[_Counted] = []
    for one in (*counted, None):
        full = one is None or sum(known.pages for known in together) + one.pages > PAGES
        if together and full:
            ids = tuple(identity for known in together for identity in known.batch.query.ids)
            yield attrs.evolve(
                partition,
                ids=ids,
                rows=sum(known.rows for known in together),
                pages=sum(known.pages for known in together),
                checkpoint=_checkpoint(together, scan),
            )
            together = []
        if one is not None:
            together.append(one)


def _checkpoint(together: Sequence[_Counted], scan: int) -> ScanCheckpoint | None:
    """Return where batches go on, if one of them was begun."""
    if all(one.batch.mark is None for one in together):
        return None
    entries = tuple(
        Entry(Run.of(one.batch.query.ids), one.batch.mark or Mark()) for one in together
    )
    first = fingerprint(together[0].batch.query.ids[0])
    return ScanCheckpoint(scan=scan, parts=(Part(first, entries),))


# ---- reading -----------------------------------------------------------------------------------


def read_partition(partition: Partition) -> Iterator["pa.RecordBatch"]:
    """Read the pods of a partition as Arrow record batches, in their order.

    A plain generator, for an engine's task: an event loop runs in a thread of its own, so a slow
    consumer delays no request; what is read ahead is bounded as in every scan. The first request
    is sent alone, so a key that is refused costs one call. Once the generator is closed, left or
    collected, no request of it is in flight and its thread has ended; the same holds when the
    script ends while it is alive, or by Ctrl-C.

    Args:
        partition: one that `plan_pods` returned, here or on another machine.

    Returns:
        A generator of record batches with the partition's `schema`.

    Raises:
        ConfigurationError: the credentials' source can't be used here; or the generator was begun
            before this process was forked, or the interpreter is ending.
        DriftError: the list leaves rows in doubt, with ``on_drift="raise"``.
        IefError: whatever ended the scan. An engine then reads the partition again, as a whole.

    Example:
        ::

            for partition in plan_pods(deployment_ids, columns=["id", "state"]):
                for batch in read_partition(partition):
                    print(batch.num_rows, "pods")
    """
    with closing(Job(partial(_read, partition))) as job:
        while (batch := job.take()) is not None:
            yield batch


async def _read(partition: Partition, give: Give["pa.RecordBatch"]) -> None:
    limits = Limits(
        concurrency=partition.concurrency, requests_per_second=partition.requests_per_second
    )
    spec = _spec(partition, partition.ids, partition.checkpoint)
    async with _session(partition, limits) as ief, Stream(scan_of(ief, spec)) as stream:
        async for batch in record_batches(stream):
            await give(batch)
        _warn(partition, stream)


def _warn(partition: Partition, stream: Stream[Any]) -> None:
    """Say in the log what only a report would say; of "repair" the stream has said it."""
    if stream.report.bad_items:
        line = 'on_bad_item="skip": %d rows that can\'t be read were left out'
        write(logging.WARNING, line, stream.report.bad_items)
    if partition.on_drift in {"report", "ignore"}:
        batches = stream.report.batches
        doubtful = [batch for batch in batches if batch.drift == "unknown"]
        if doubtful:
            write(
                logging.WARNING,
                'on_drift="%s": %d of %d batches may lack rows (%s)',
                partition.on_drift,
                len(doubtful),
                len(batches),
                ", ".join(dict.fromkeys(flag for batch in doubtful for flag in batch.flags)),
            )


def _session(partition: Partition, limits: Limits) -> IefSession:
    """Return the session that a partition is read by."""
    name: object = partition.credentials
    given: dict[str, Any] = {
        key: value
        for key in ("project_id", "region", "endpoint", "iam_endpoint", "instance_id")
        if (value := getattr(partition, key)) is not None
    }
    kind, _, rest = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind == "profile" and rest:
        given["profile"] = rest
    elif name == "ecs":
        given["credentials"] = EcsMetadata()
    elif name != "env":
        source = _function(kind, rest)
        if source is None:
            shown = f"{len(name)} characters" if isinstance(name, str) else type(name).__name__
            message = (
                "credentials must be the name of a source, which each worker looks up: 'env', "
                f"'profile:NAME', 'ecs' or 'package.module:function', got {shown}"
            )
            raise ConfigurationError(message)
        given["credentials"] = source if inspect.iscoroutinefunction(source) else source()
    return IefSession.from_env(limits=limits, **given)


def _function(module: str, name: str) -> Callable[[], Any] | None:
    try:
        found = getattr(import_module(module), name, None) if module and name else None
    except ImportError:
        return None
    return found if callable(found) else None
