"""The lists of the API: one `Listing` each, read by the session, the command and the tests.

A new list needs

* the model of a row in ``_models/others``, with its parts, in both lists of names of ``_models``,
  and both of the package's ``__init__``;
* a class for its filters here, if it has any, and a row in `LISTINGS`;
* a method ``iter_…`` of `IefSession` with its overloads and an example;
* columns for the command in ``cli/_output``, if the usual ones do not fit;
* in the fake a row and a method in ``testing/_lists``, an argument and a property of its server;
* in the tests a full row in ``samples/siblings.full.json``, its fields in ``TABLES`` of
  ``test_models``, the number of rows in ``test_lists``, its key in ``KEYS`` of ``moving``, and
  lines in ``typing/api`` and ``typing/models``.

Tests name whatever is missing. `iter_pods` refuses the new rows as ids unless ``SELECTORS`` of
``_paging/batches`` names the model.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import attrs

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import OnBadItem, OnDrift, OnError, OnUnknownField
from ief_async._values import Value

if TYPE_CHECKING:
    from ief_async._structure import Rows

MOST_ROWS = 10_000  # no known list of the service has more than 1,000 rows in a page


class Identified(Protocol):
    """An object with an id: a `Deployment`, a `Node`, a `Group`, or an object of your own."""

    @property
    def id(self) -> str:
        """The id, as the server sent it."""


Ids = Iterable[str | Identified] | AsyncIterable[str | Identified]

# ---- the options of each list, for type checkers -------------------------------------------------


class ListOptions(TypedDict, total=False):
    """Options of every list; `IefSession.iter_pods` documents them."""

    page_size: int
    concurrency: int
    on_drift: OnDrift
    on_bad_item: OnBadItem
    on_unknown_field: OnUnknownField
    max_items: int | None
    deadline: float | None
    resume_from: ScanCheckpoint | str | bytes | None


class PodOptions(ListOptions, total=False):
    """The other options of `IefSession.iter_pods`."""

    node_ids: Ids | None
    group_ids: Ids | None
    skip_empty_nodes: bool
    batch_size: int
    ordered: bool
    on_error: OnError


class PageOptions(TypedDict, total=False):
    """The options of `IefSession.list_pods`."""

    deployment_ids: Iterable[str] | None
    deployment_id: str | None
    node_id: str | None
    group_id: str | None
    plugin_instance_name: str | None
    limit: int | None
    offset: int
    on_bad_item: OnBadItem
    on_unknown_field: OnUnknownField


class DeploymentOptions(ListOptions, total=False):
    """Filters of `IefSession.iter_deployments`."""

    name: str | None
    node_id: str | None
    group_id: str | None
    sort: str | None


class NodeOptions(ListOptions, total=False):
    """Filters of `IefSession.iter_nodes`."""

    name: str | None
    state: str | None
    tags: str | None
    group_id: str | None
    device_id: str | None
    device_name: str | None
    app_name: str | None
    sort: str | None


class GroupOptions(ListOptions, total=False):
    """Filters of `IefSession.iter_groups`."""

    name: str | None
    sort: str | None


# ---- rows ----------------------------------------------------------------------------------------


@attrs.frozen(eq=False, repr=False)
class Listed(Value):
    """The id of a deployment or group: no other field can make the row fail and hide its pods."""

    id: str


@attrs.frozen(eq=False, repr=False)
class ListedNode(Listed):
    """The id of a node, and how many pods it reports."""

    deployment_num: Any = None


def _read_instances(body: bytes, *, tolerate: bool = False) -> "Rows":
    """Read the list of instances: its rows have either of two keys, or are a plain array.

    The API documents show neither its envelope nor parameters for pages, so a response without a
    count is the whole list.
    """
    from ief_async._structure import split  # not imported for the command's help

    if body.lstrip().startswith(b"["):
        body = b'{"ief_instances":%b}' % body
    named = b'"ief_instances"' in body or b'"instances"' not in body
    rows = split(body, key="ief_instances" if named else "instances", tolerate=tolerate)
    return rows if rows.count is not None else attrs.evolve(rows, count=len(rows.ids))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Listing(Value):
    """A list of the API.

    Attributes:
        name: its name in the command; the method that streams it is ``iter_`` and this name.
        path: its URL path.
        key: the key of its rows in a response.
        document: the name of the model of a row.
        most_rows: the largest page size.
        page_size: the default page size of the command.
        options: the class with its filters and options.
        exclusive: filters that can't be combined.
        read: reads a response whose envelope differs from that of the other lists.
    """

    name: str
    path: str
    key: str
    document: str
    most_rows: int = MOST_ROWS
    page_size: int = 100
    options: Any = ListOptions
    exclusive: tuple[str, ...] = ()
    read: "Callable[..., Rows] | None" = None

    @property
    def model(self) -> type:
        """The model of a row; imported late, as the command's help and completion do without it."""
        from ief_async import _models

        model: type = getattr(_models, self.document)
        return model

    @property
    def operation(self) -> str:
        """The method that streams it."""
        return f"iter_{self.name}"

    @property
    def filters(self) -> tuple[str, ...]:
        """The names of the service's own filters."""
        how = {*ListOptions.__annotations__, *PodOptions.__annotations__}
        return tuple(name for name in self.options.__annotations__ if name not in how)


# The documents call `limit` an Integer for pods and deployments, and a String for nodes: in a URL
# both are the same.
PODS = Listing(
    name="pods",
    path="/v3/{project_id}/edgemgr/pods",
    key="pods",
    document="Pod",
    page_size=1_000,
    options=PodOptions,
)
DEPLOYMENTS = Listing(
    name="deployments",
    path="/v3/{project_id}/edgemgr/deployments",
    key="deployments",
    document="Deployment",
    most_rows=100,
    options=DeploymentOptions,
    exclusive=("node_id", "group_id"),
)
NODES = Listing(
    name="nodes",
    path="/v2/{project_id}/edgemgr/nodes",
    key="nodes",
    document="Node",
    most_rows=1_000,
    page_size=1_000,
    options=NodeOptions,
)
GROUPS = Listing(
    name="groups",
    path="/v2/{project_id}/edgemgr/groups",
    key="edge_groups",
    document="Group",
    most_rows=1_000,
    options=GroupOptions,
)
INSTANCES = Listing(
    name="instances",
    path="/v2/{project_id}/edgemgr/ief-instances",
    key="ief_instances",
    document="Instance",
    most_rows=1_000,
    read=_read_instances,
)
LISTINGS: Mapping[str, Listing] = {
    one.name: one for one in (PODS, DEPLOYMENTS, NODES, GROUPS, INSTANCES)
}
