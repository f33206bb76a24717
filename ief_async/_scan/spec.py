"""`ScanSpec`: the arguments of a scan, checked once. Everything below takes it instead of them."""

import inspect
from collections.abc import AsyncIterable, Callable, Collection, Iterable
from typing import Any, Generic, TypeVar, get_args

import attrs

from ief_async._arguments import (
    ID_BYTES,
    ID_LENGTHS,
    check_choice,
    check_kind,
    check_number,
    refuse,
)
from ief_async._checkpoint import ScanCheckpoint, fingerprint
from ief_async._endpoints import Listing
from ief_async._errors import (
    CheckpointError,
    ConfigurationError,
    OnBadItem,
    OnDrift,
    OnError,
    OnUnknownField,
)
from ief_async._paging import Batcher, PageCap, ScanPlan, Selector, check_id, url_bytes
from ief_async._structure import structure_of

T = TypeVar("T")

PROJECT_ID = "{project_id}"  # in a path, until the project is known
PROJECT_CHARACTERS = 32  # as every id of a project has
MOST_CONCURRENT = 1_000
MOST_IDS = 1_000  # in one query
# what the arguments of public methods call the selectors of the API
ID_ARGUMENTS: dict[Selector, str] = {
    "deployment_ids": "deployment_ids",
    "node_id": "node_ids",
    "group_id": "group_ids",
}


def check_bad_item(name: str, value: object) -> None:
    """Accept "raise", "skip", or a plain function."""
    if not callable(value):
        check_choice(name, value, get_args(OnBadItem)[0])
    elif any(map(inspect.iscoroutinefunction, (value, type(value).__call__))):
        refuse(name, "a plain function of a row and its error", "an async one")


def as_checkpoint(given: object) -> ScanCheckpoint | None:
    """Return the checkpoint to resume from, which may be given as its JSON."""
    if isinstance(given, str | bytes):
        given = ScanCheckpoint.from_json(given)
    if given is not None and not isinstance(given, ScanCheckpoint):
        refuse("resume_from", "a ScanCheckpoint or its JSON", type(given).__name__)
    return given


def select_ids(**given: object) -> tuple[Selector, Iterable[object] | AsyncIterable[object]]:
    """Return the selector of the one argument of `ID_ARGUMENTS` that is given, and its ids.

    A collection is copied, and its ids are checked.
    """
    chosen = [(name, ids) for name, ids in given.items() if ids is not None]
    if len(chosen) != 1:
        message = f"give one of {', '.join(given)}: {len(chosen)} were given"
        raise ConfigurationError(message)
    name, ids = chosen[0]
    selector = next(one for one, argument in ID_ARGUMENTS.items() if argument == name)
    if isinstance(ids, AsyncIterable):
        return selector, ids
    several = check_iterable(name, ids)
    if isinstance(several, Collection):
        several = tuple(several)
        _check_ids(name, several)
    return selector, several


def _check_ids(name: str, ids: Collection[Any]) -> None:
    """Refuse what can't be an id. Valid strings take the short way, as the event loop waits."""
    if {*map(type, ids)} <= {str} and {*map(len, ids)} <= ID_LENGTHS:
        text = "".join(ids)
        if text.isascii() and not text.encode().translate(None, ID_BYTES):
            return
    for identity in ids:
        check_id(identity, name)


def check_iterable(name: str, ids: object) -> Iterable[object]:
    """Refuse one id where several are taken: a bare string would be read letter by letter."""
    if isinstance(ids, str | bytes):
        refuse(name, "an iterable of ids", f"{type(ids).__name__}: write [{ids!r:.80}]")
    if not isinstance(ids, Iterable):
        refuse(name, "an iterable of ids", type(ids).__name__)
    return ids


def _checked(
    check: Callable[..., None], *kinds: object, optional: bool = False, **bounds: Any
) -> Callable[[Any, Any, Any], None]:
    """Return an attrs validator that calls a check with the name of the argument."""

    def validate(_: object, attribute: Any, value: object) -> None:
        if value is not None or not optional:
            check(attribute.name, value, *kinds, **bounds)

    return validate


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ScanSpec(Generic[T]):
    """What is read, and how: the arguments of a scan, which `IefSession.iter_pods` explains.

    Session, fleet and engines make one. Whatever can be wrong with an argument is told here, by
    the name that users know it by, before anything is sent.

    Attributes:
        listing: the list that is read.
        selector: what the ids are of; "filter" for a list without ids.
        ids: as `select_ids` gave them; of a list without ids its one filter, as it stands in a URL.
        model: the class of the items.
        page_size: rows asked for at a time.
        batch_size: ids of one query, where a query takes several.
        concurrency: requests in flight at most.
        ordered: whether batches come in the order of their ids.
        on_error: what a failed batch leads to.
        on_drift: what is done about a list that moves.
        on_bad_item: what a row leads to that can't be read.
        on_unknown_field: what a field leads to that only the model has.
        max_items: items delivered at most.
        deadline: seconds that the whole scan may take.
        resume_from: the checkpoint of an earlier scan.
        skip_empty_nodes: whether nodes that report no pods are left out.
        count_only: whether only the count of each batch is wanted, not its rows.
    """

    listing: Listing
    selector: Selector = "filter"
    ids: Iterable[object] | AsyncIterable[object] = attrs.field(repr=False)
    model: type[T] = attrs.field()
    page_size: int = attrs.field(default=100)
    batch_size: int = attrs.field(
        default=100, validator=_checked(check_number, least=1, most=MOST_IDS, whole=True)
    )
    concurrency: int = attrs.field(
        default=8, validator=_checked(check_number, least=1, most=MOST_CONCURRENT, whole=True)
    )
    ordered: bool = attrs.field(default=True, validator=_checked(check_kind, bool))
    on_error: OnError = attrs.field(default="raise", validator=_checked(check_choice, OnError))
    on_drift: OnDrift = attrs.field(default="repair", validator=_checked(check_choice, OnDrift))
    on_bad_item: OnBadItem = attrs.field(default="raise", validator=_checked(check_bad_item))
    on_unknown_field: OnUnknownField = attrs.field(
        default="warn", validator=_checked(check_choice, OnUnknownField)
    )
    max_items: int | None = attrs.field(
        default=None, validator=_checked(check_number, least=1, whole=True, optional=True)
    )
    deadline: float | None = attrs.field(
        default=None, validator=_checked(check_number, more=True, optional=True)
    )
    resume_from: ScanCheckpoint | None = attrs.field(default=None, converter=as_checkpoint)
    skip_empty_nodes: bool = attrs.field(default=True, validator=_checked(check_kind, bool))
    count_only: bool = False

    @model.validator
    def _check_model(self, _: object, value: Any) -> None:
        structure_of(value)

    @page_size.validator
    def _check_page_size(self, _: object, value: object) -> None:
        check_number("page_size", value, least=1, most=self.listing.most_rows, whole=True)

    @property
    def operation(self) -> str:
        """The public method that it is the arguments of."""
        return "count_pods" if self.count_only else self.listing.operation

    @property
    def query_size(self) -> int:
        """How many ids a query takes at most."""
        return self.batch_size if self.selector == "deployment_ids" else 1

    def fingerprint(self, project: str, instance_id: str | None) -> int:
        """Return what a checkpoint of this scan is known by; refuse to resume from another's.

        Raises:
            CheckpointError: `resume_from` is of a scan that asks for other things.
        """
        kind = self.listing.key if self.selector == "filter" else self.selector
        made = fingerprint(project, instance_id, kind, self.page_size, self.query_size)
        if self.resume_from is not None and self.resume_from.scan != made:
            message = (
                "the checkpoint is of another scan: resume with the same project, instance, kind "
                "of ids, page_size and batch_size"
            )
            raise CheckpointError(message)
        return made

    def batcher(self, project_id: str | None) -> Batcher:
        """Return what makes queries of the ids; of a project that is not known yet, too."""
        path = self.listing.path.replace(PROJECT_ID, project_id or "x" * PROJECT_CHARACTERS)
        has_ids = self.selector != "filter"
        return Batcher(
            selector=self.selector,
            size=self.query_size,
            fixed_bytes=url_bytes(path, self.selector, self.page_size) if has_ids else 0,
            skip_empty_nodes=self.skip_empty_nodes and self.selector == "node_id",
            resume=self.resume_from,
        )

    def plan(self, cap: PageCap) -> ScanPlan:
        """Return the plan of all batches, with what the session knows of the server's pages."""
        return ScanPlan(
            concurrency=self.concurrency,
            ordered=self.ordered,
            limit=1 if self.count_only else self.page_size,
            on_drift=self.on_drift,
            max_items=self.max_items,
            count_only=self.count_only,
            cap=cap,
        )
