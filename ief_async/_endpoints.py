"""The table of the lists that the API has: where each is, what its rows are, what filters it."""

from collections.abc import Callable
from typing import Any, TypedDict

import attrs

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import OnBadItem, OnDrift, OnUnknownField
from ief_async._models import Deployment, Group, Instance, Node, Pod
from ief_async._structure import Rows, split

MOST_ROWS = 10_000  # no list of the service is known to give more than 1,000 a page


class ListOptions(TypedDict, total=False):
    """How a list is read: as in `IefSession.iter_pods`, which says what each means."""

    page_size: int
    concurrency: int
    on_drift: OnDrift
    on_bad_item: OnBadItem
    on_unknown_field: OnUnknownField
    max_items: int | None
    deadline: float | None
    resume_from: ScanCheckpoint | str | bytes | None


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


@attrs.frozen
class Found:
    """What a scan needs of a deployment or group: what is odd elsewhere in it, hides no pods."""

    id: str


@attrs.frozen
class FoundNode(Found):
    """And of a node: one that reports 0 has no pods."""

    deployment_num: Any = None


def _read_instances(body: bytes, *, tolerate: bool = False) -> Rows:
    """Read a list whose envelope no document shows: by either name, or without one.

    Nor does any name parameters for its pages: without a count an answer is the whole list.
    """
    if body.lstrip().startswith(b"["):
        body = b'{"ief_instances":%b}' % body
    named = b'"ief_instances"' in body or b'"instances"' not in body
    rows = split(body, key="ief_instances" if named else "instances", tolerate=tolerate)
    return rows if rows.count is not None else attrs.evolve(rows, count=len(rows.ids))


@attrs.frozen
class Listing:
    """A list of the API.

    Attributes:
        path: where it is.
        key: the key of its rows.
        model: what is documented of a row.
        most_rows: that a page may have.
        options: its filters, and how it is read.
        read: what takes an answer apart whose envelope is not that of all others.
    """

    path: str
    key: str
    model: type
    most_rows: int = MOST_ROWS
    options: Any = ListOptions
    read: Callable[..., Rows] | None = None

    @property
    def operation(self) -> str:
        """The method that streams it."""
        return f"iter_{self.model.__name__.lower()}s"

    @property
    def filters(self) -> frozenset[str]:
        """The names of its filters."""
        return frozenset(self.options.__annotations__) - frozenset(ListOptions.__annotations__)


# A `limit` is an Integer of pods and deployments, and a String of nodes: in a URL the same.
PODS = Listing("/v3/{project_id}/edgemgr/pods", "pods", Pod)
DEPLOYMENTS = Listing(
    "/v3/{project_id}/edgemgr/deployments", "deployments", Deployment, 100, DeploymentOptions
)
NODES = Listing("/v2/{project_id}/edgemgr/nodes", "nodes", Node, 1_000, NodeOptions)
GROUPS = Listing("/v2/{project_id}/edgemgr/groups", "edge_groups", Group, 1_000, GroupOptions)
INSTANCES = Listing(
    "/v2/{project_id}/edgemgr/ief-instances",
    "ief_instances",
    Instance,
    1_000,
    read=_read_instances,
)
