"""Models of the server's data: one attrs class for each table of the API documents.

The first document is "Querying application instances" (ListPods) of the IEF API reference; table
numbers are its own. An attribute has exactly the name of its JSON key. The server may leave out
every field but ``id``: it is None then, or empty if it is a list. The defaults that the document
names are the service's, and are not filled in. ``""`` is what the server sent, and is not None.
Sets of values are open, so they are ``str`` and not an Enum: a new state of the service must not
break a stream. Pure: no clock, no loop, no socket.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import attrs

from ief_async._values import Value

T = TypeVar("T", bound=attrs.AttrsInstance)


def sparse(*names: str) -> Callable[[type[T]], type[T]]:
    """Make objects cheaper to decode and to store if most rows lack some fields.

    A class decorator for models of your own, above ``@attrs.frozen``; the models of this library
    use it. A named field costs nothing if the row lacks it, and slightly more than another field if
    the row has it. The class and its subclasses behave as before.

    Args:
        names: the fields.

    Raises:
        TypeError: the class has no slots, or the default of a named field is not a constant.

    Example:
        ::

            import attrs

            from ief_async import sparse


            @sparse("description")
            @attrs.frozen
            class Brief:
                id: str
                description: str | None = None


            pods = await ief.iter_pods(ids, model=Brief).collect()
    """

    def rebuild(model: type[T]) -> type[T]:
        fields = attrs.fields_dict(model)
        slots: tuple[str, ...] = vars(model).get("__slots__", ())
        problem = "" if slots else "sparse() needs an attrs class with slots"
        for name in names:
            default = fields[name].default if name in fields else attrs.NOTHING
            if default is attrs.NOTHING or isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever its stub says
                problem = problem or f"{name} must be a field whose default is a constant"
        if problem:
            message = f"{model.__name__}: {problem}"
            raise TypeError(message)
        # A decoder reads from a new object each field that its row lacked. An empty slot raises an
        # error, which is caught, before the default is set; an attribute of the class is found at
        # once, and takes no memory in the object.
        own = {key: value for key, value in vars(model).items() if key not in slots}
        more_slots = () if model.__dictoffset__ else ("__dict__",)
        namespace = {
            **own,
            **{name: fields[name].default for name in names},
            "__qualname__": model.__qualname__,
            "__slots__": (*(name for name in slots if name not in names), *more_slots),
        }
        kind: Any = type(model)
        made: type[T] = kind(model.__name__, model.__bases__, namespace)
        for value in own.values():  # `super()` uses this cell
            for cell in getattr(value, "__closure__", None) or ():
                if cell.cell_contents is model:
                    cell.cell_contents = made
        return made

    return rebuild


def words(*known: str) -> str | None:
    """Return a field for a word of an open set; `known` are the words known so far."""
    field: str | None = attrs.field(default=None, metadata={"known": frozenset(known)})
    return field


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MatchExpression(Value):
    """One condition on labels; part of `Affinity`, for which the document has no table.

    Attributes:
        key: the label.
        operator: ``In``, ``NotIn``, ``Exists``, ``DoesNotExist``, ``Gt``, ``Lt``.
        values: what the label is held against; empty for ``Exists`` and ``DoesNotExist``, one value
            for ``Gt`` and ``Lt``.
    """

    key: str | None = None
    operator: str | None = words("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
    values: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeSelectorTerm(Value):
    """Conditions that a node must all meet.

    Attributes:
        matchExpressions: the conditions.
    """

    matchExpressions: tuple[MatchExpression, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeSelector(Value):
    """Terms of which a node must meet at least one.

    Attributes:
        nodeSelectorTerms: the terms.
    """

    nodeSelectorTerms: tuple[NodeSelectorTerm, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PreferredNodeTerm(Value):
    """A preference for some nodes.

    Attributes:
        weight: 1 to 100.
        preference: the nodes.
    """

    weight: int | None = None
    preference: NodeSelectorTerm | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeAffinity(Value):
    """Which nodes a pod prefers or requires.

    Attributes:
        preferredDuringSchedulingIgnoredDuringExecution: preferences, by weight.
        requiredDuringSchedulingIgnoredDuringExecution: requirements; an object here, a list for
            pods.
    """

    preferredDuringSchedulingIgnoredDuringExecution: tuple[PreferredNodeTerm, ...] = ()
    requiredDuringSchedulingIgnoredDuringExecution: NodeSelector | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LabelSelector(Value):
    """Pods with certain labels.

    Attributes:
        matchExpressions: conditions on labels.
        matchLabels: labels and their values; left out of the hash.
    """

    matchExpressions: tuple[MatchExpression, ...] = ()
    matchLabels: dict[str, str] = attrs.field(factory=dict, hash=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodAffinityTerm(Value):
    """Pods to be near, or away from.

    Attributes:
        labelSelector: which pods.
        namespaces: where they are looked for.
        topologyKey: the node label whose equal value counts as near.
    """

    labelSelector: LabelSelector | None = None
    namespaces: tuple[str, ...] = ()
    topologyKey: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class WeightedPodAffinityTerm(Value):
    """A preference to be near, or away from, some pods.

    Attributes:
        weight: 1 to 100.
        podAffinityTerm: the pods.
    """

    weight: int | None = None
    podAffinityTerm: PodAffinityTerm | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodAffinity(Value):
    """Which pods a pod prefers or requires near it; as ``podAntiAffinity``, away from it.

    Attributes:
        preferredDuringSchedulingIgnoredDuringExecution: preferences, by weight.
        requiredDuringSchedulingIgnoredDuringExecution: requirements; a list here, an object for
            nodes.
    """

    preferredDuringSchedulingIgnoredDuringExecution: tuple[WeightedPodAffinityTerm, ...] = ()
    requiredDuringSchedulingIgnoredDuringExecution: tuple[PodAffinityTerm, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Affinity(Value):
    """Where a pod may run; platinum edition only. Its keys are camelCase, unlike all others.

    Attributes:
        nodeAffinity: by node.
        podAffinity: near other pods.
        podAntiAffinity: away from other pods.
    """

    nodeAffinity: NodeAffinity | None = None
    podAffinity: PodAffinity | None = None
    podAntiAffinity: PodAffinity | None = None


@sparse("dns_policy")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodConfigs(Value):
    """The configuration of an application instance (table 15).

    Attributes:
        host_network: whether it uses the node's network; if not, ports are mapped. Default false.
        host_pid: whether it shares the node's process ids. Default false.
        migration: whether it moves to another node on a fault; groups only. Default false.
        restart_policy: ``Always``, ``OnFailure``, ``Never``.
        toleration_seconds: seconds of a fault before it moves; groups only.
        dns_policy: ``Default`` (the default), ``ClusterFirst``, ``ClusterFirstWithHostNet``; in
            newer documents only.
    """

    host_network: bool | None = None
    host_pid: bool | None = None
    migration: bool | None = None
    restart_policy: str | None = None
    toleration_seconds: int | None = None
    dns_policy: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Env(Value):
    """An environment variable of a container (table 14).

    Attributes:
        name: up to 2,048 letters, digits and underscores; no digit first.
        value: up to 20,480 characters. It may be a secret, so no ``repr`` shows it. None where the
            value comes from a secret, a config map or a field.
    """

    name: str | None = None
    value: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Exec(Value):
    """A probe that runs a command (table 13).

    Attributes:
        command: one string of up to 10,240 characters, not a list.
    """

    command: str | None = None


@sparse("host")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpGet(Value):
    """A probe that requests a URL (table 12).

    Attributes:
        path: begins with a slash.
        port: 1 to 65535.
        host: the container's address by default.
        scheme: ``HTTP`` (the default) or ``HTTPS``; lower case is seen, too.
    """

    path: str | None = None
    port: int | None = None
    host: str | None = None
    scheme: str | None = words("HTTP", "HTTPS", "http", "https")


@sparse("exec")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Probe(Value):
    """How a container's health is tested (table 11): by a URL or by a command.

    Attributes:
        http_get: the URL.
        exec: the command.
        initial_delay_seconds: seconds from the start to the first test, 1 to 3600. Default 10.
        timeout_seconds: seconds until a test has failed, 1 to 3600. Default 1.
    """

    http_get: HttpGet | None = None
    exec: Exec | None = None
    initial_delay_seconds: int | None = None
    timeout_seconds: int | None = None


@sparse("host_ip")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Port(Value):
    """A container's port and the node's port that is mapped to it (table 10).

    Attributes:
        container_port: 1 to 65535.
        host_port: 1 to 65535.
        host_ip: address of the node's network card.
    """

    container_port: int | None = None
    host_port: int | None = None
    host_ip: str | None = None


@sparse("npu", "D310", "D310B", "D910")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ResourceAmounts(Value):
    """Amounts of resources (table 9). The server sends strings or numbers; here they are numbers.

    Attributes:
        cpu: cores, 0.01 to 1000.
        memory: MB, 0.01 to 1024000; as a limit at least 4.
        gpu: MB of GPU memory, 0.01 to 1024000.
        npu: NPUs of the container's ``npu_type``, more than 0, up to 1000.
        D310: NPUs of this chip; the map is open, and chips may stand in it by name.
        D310B: NPUs of this chip.
        D910: NPUs of this chip.
    """

    cpu: float | None = None
    memory: float | None = None
    gpu: float | None = None
    npu: float | None = None
    D310: float | None = None
    D310B: float | None = None
    D910: float | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Resources(Value):
    """What a container may use, and what is reserved for it (table 8).

    Attributes:
        limits: the most it may use.
        requests: what is reserved for it.
    """

    limits: ResourceAmounts | None = None
    requests: ResourceAmounts | None = None


@sparse("default_mode")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Volume(Value):
    """A volume and where it is mounted in a container (table 7).

    Attributes:
        name: up to 63 lower-case letters, digits and hyphens.
        type: ``configMap``, ``secret``, ``emptyDir``, ``hostPath``.
        read_only: whether it can only be read, which is the default; always so for ``configMap``
            and ``secret``.
        source: a path of the node (``hostPath``), a name (``secret``, ``configMap``), ``disk`` or
            ``memory`` (``emptyDir``).
        destination: the path in the container.
        default_mode: mode of the files as a decimal number. Default 420, that is 0644; in newer
            documents only.
    """

    name: str | None = None
    type: str | None = words("configMap", "secret", "emptyDir", "hostPath")
    read_only: bool | None = None
    source: str | None = None
    destination: str | None = None
    default_mode: int | None = None


@sparse("version", "is_ready", "privileged", "container_id", "state")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Container(Value):
    """A container of an application instance (table 6).

    Attributes:
        args: arguments of the start command.
        command: the start command.
        name: up to 32 lower-case letters, digits and hyphens; no hyphen first or last.
        envs: environment variables.
        image_url: where the image comes from; may be ``""``.
        version: tag of the image.
        liveness_probe: if it fails, the container is restarted.
        readiness_probe: while it fails, the container is not ready.
        ports: its ports.
        resources: what it may use.
        volumes: mounted volumes.
        restarts: how often it was restarted.
        message: the details of an error, or ``""``.
        reason: a short reason for an error, or ``""``.
        is_ready: result of the health check, as a string: ``"true"`` or ``"false"``.
        privileged: whether it runs in privileged mode. Default false.
        container_id: id of the running container.
        state: not documented; values like those of a pod.
        npu_type: ``D310``, ``D310B``, formerly ``D910``; ``""`` is D310.
    """

    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    name: str | None = None
    envs: tuple[Env, ...] = ()
    image_url: str | None = None
    version: str | None = None
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    ports: tuple[Port, ...] = ()
    resources: Resources | None = None
    volumes: tuple[Volume, ...] = ()
    restarts: int | None = None
    message: str | None = None
    reason: str | None = None
    is_ready: str | None = None
    privileged: bool | None = None
    container_id: str | None = None
    state: str | None = None
    npu_type: str | None = words("D310", "D310B", "D910")


TIMESTAMPS = ("created_at", "updated_at")


class Dated(Value):
    """The times of an object, parsed from any format that the server uses."""

    __slots__ = ()
    created_at: str | None
    updated_at: str | None

    @property
    def created(self) -> datetime | None:
        """`created_at` as an aware time in UTC, or None if its format is unknown."""
        return parse_timestamp(self.created_at)

    @property
    def updated(self) -> datetime | None:
        """`updated_at` as an aware time in UTC, or None if its format is unknown."""
        return parse_timestamp(self.updated_at)


@sparse("affinity", "init_containers")
@attrs.frozen(kw_only=True, eq=False, repr=False)
class Pod(Dated):
    """An application instance: a pod on an edge node (table 5).

    Attributes:
        id: its uuid; the only field that is always present.
        name: its name; the API calls that delete or restart it take the name, not the id.
        description: not in the table, only in the document's example.
        configs: how it runs.
        affinity: where it may run; platinum edition only.
        init_containers: containers that run to their end before the others start.
        containers: its containers.
        node_id: the edge node it is on; may be ``""`` while it is ``PENDING``.
        deployment_id: the deployment it belongs to; left out of the document's example.
        project_id: its project.
        reason: a short reason for an error, or ``""``.
        message: the details of an error, or ``""``.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        state: ``RUNNING``, ``PENDING``, ``SUCCEEDED``, ``FAILED``, ``CREATE_FAIL``,
            ``TERMINATING``, ``PENDING_DELETE``, ``DELETE_FAILED``, ``FREEZE``, ``UNKNOWN``, and
            whatever is new.
    """

    id: str
    name: str | None = None
    description: str | None = None
    configs: PodConfigs | None = None
    affinity: Affinity | None = None
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()
    node_id: str | None = None
    deployment_id: str | None = None
    project_id: str | None = None
    reason: str | None = None
    message: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    state: str | None = words(
        "RUNNING",
        "PENDING",
        "SUCCEEDED",
        "FAILED",
        "CREATE_FAIL",
        "TERMINATING",
        "PENDING_DELETE",
        "DELETE_FAILED",
        "FREEZE",
        "UNKNOWN",
    )


# ---- times --------------------------------------------------------------------------------------

# 2019-10-10T02:24:02.325Z, fraction and offset optional, and the format of Go:
# 2022-06-07 08:21:05.794205 +0000 UTC. The name of a zone without an offset is not accepted.
_TIMESTAMP = re.compile(
    r"(?P<moment>\d{4}-\d\d-\d\d[T ](?:[01]\d|2[0-3]):\d\d:\d\d)(?:\.(?P<fraction>\d{1,12}))?"
    r"(?:Z| ?(?P<sign>[+-])(?P<hours>[01]\d|2[0-3]):?(?P<minutes>[0-5]\d)(?: [A-Z]{3,5})?)?",
    re.ASCII,
)
_LONGEST = 64  # characters; no known format is longer, and this bounds the number of digits


def parse_timestamp(text: str | None) -> datetime | None:
    """Return a time in any format that the service is known to use, or None; never raises.

    The result is aware and in UTC. A time without a zone is taken as UTC, digits alone as seconds
    since 1970; nanoseconds are cut to microseconds. None means an unknown format.
    """
    if not text or len(text) > _LONGEST:
        return None
    try:
        if text.isascii() and text.isdigit():
            return datetime.fromtimestamp(int(text), UTC)
        found = _TIMESTAMP.fullmatch(text)
        if found is None:
            return None
        moment = datetime.fromisoformat(found["moment"]).replace(tzinfo=UTC)
        moment += timedelta(microseconds=int((found["fraction"] or "0").ljust(6, "0")[:6]))
        if found["sign"]:
            ahead = timedelta(hours=int(found["hours"]), minutes=int(found["minutes"]))
            moment += -ahead if found["sign"] == "+" else ahead
    except (ValueError, OverflowError, OSError):
        return None
    return moment
