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


def _words(*known: str) -> str | None:
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
    operator: str | None = _words("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")
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
    scheme: str | None = _words("HTTP", "HTTPS", "http", "https")


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
    type: str | None = _words("configMap", "secret", "emptyDir", "hostPath")
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
    npu_type: str | None = _words("D310", "D310B", "D910")


TIMESTAMPS = ("created_at", "updated_at")


class _Dated(Value):
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
class Pod(_Dated):
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
    state: str | None = _words(
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


# ---- deployments -------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Tag(Value):
    """A name and a value that users set: a tag, or an attribute.

    Attributes:
        key: the name.
        value: the value.
    """

    key: str | None = None
    value: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KeyRef(Value):
    """One key of a secret or of a config map.

    Attributes:
        name: the secret or config map.
        key: the key in it.
    """

    name: str | None = None
    key: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ValueFrom(Value):
    """Where the value of an environment variable comes from; one of the two is set.

    Attributes:
        secret: a key of a secret.
        configmap: a key of a config map.
    """

    secret: KeyRef | None = None
    configmap: KeyRef | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EnvTemplate(Value):
    """An environment variable of a deployment: its value, or where the value comes from.

    Attributes:
        name: up to 2,048 letters, digits and underscores; no digit first.
        value: up to 20,480 characters. It may be a secret, so no ``repr`` shows it.
        value_from: a secret or a config map instead.
        field_path: a field of the pod instead; only ``status.hostIP``.
    """

    name: str | None = None
    value: str | None = attrs.field(default=None, repr=False)
    value_from: ValueFrom | None = None
    field_path: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PortRange(Value):
    """A range of ports of a node, any of which may be used.

    Attributes:
        min_port: the first.
        max_port: the last.
    """

    min_port: int | None = None
    max_port: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PortTemplate(Value):
    """A container's port in a deployment.

    Attributes:
        container_port: 1 to 65535.
        host_port: 1 to 65535.
        host_ip: address of the node's network card.
        host_port_range: instead of `host_port`, ports to choose from.
    """

    container_port: int | None = None
    host_port: int | None = None
    host_ip: str | None = None
    host_port_range: PortRange | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ContainerTemplate(Value):
    """A container in a deployment; it has the fields of `Container` except its state.

    Attributes:
        name: up to 32 lower-case letters, digits and hyphens.
        image_url: where the image comes from.
        version: tag of the image.
        args: arguments of the start command.
        command: the start command.
        resources: what it may use.
        envs: environment variables.
        ports: its ports.
        privileged: whether it runs in privileged mode.
        run_as_user: the user's number, 0 to 65534.
        readiness_probe: while it fails, the container is not ready.
        liveness_probe: if it fails, the container is restarted.
        volumes: mounted volumes.
        npu_type: ``D310``, ``D310B``, formerly ``D910``; ``""`` is D310.
    """

    name: str | None = None
    image_url: str | None = None
    version: str | None = None
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    resources: Resources | None = None
    envs: tuple[EnvTemplate, ...] = ()
    ports: tuple[PortTemplate, ...] = ()
    privileged: bool | None = None
    run_as_user: int | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    volumes: tuple[Volume, ...] = ()
    npu_type: str | None = _words("D310", "D310B", "D910")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodTemplate(Value):
    """The template of the pods of a deployment.

    Attributes:
        configs: how they run.
        affinity: where they may run; platinum edition only.
        init_containers: containers that run to their end before the others start.
        containers: their containers.
    """

    configs: PodConfigs | None = None
    affinity: Affinity | None = None
    init_containers: tuple[ContainerTemplate, ...] = ()
    containers: tuple[ContainerTemplate, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeploymentAnnotations(Value):
    """Annotations that the service sets on a deployment.

    Attributes:
        ring_controller: as the service writes it.
        autonomy_edge_selector: as the service writes it.
    """

    ring_controller: str | None = None
    autonomy_edge_selector: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Deployment(_Dated):
    """An application that is deployed to a node or to a node group.

    Attributes:
        id: its uuid: what `iter_pods` takes.
        name: up to 32 characters.
        replicas: how many pods it should have.
        ready_replicas: how many pods are ready.
        description: up to 255 characters.
        group_id: the node group it is deployed to, if it is.
        node_ids: the nodes it is deployed to; at present one at most.
        tags: its tags.
        api_version: its API version.
        source: ``iem``, ``userdefined``; ``userdefine`` also occurs.
        project_id: its project.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        template: the template of its pods.
        state: ``FREEZE``, ``PENDING_DELETE``, ``DELETE_FAILED``; left out otherwise.
        source_id: reserved.
        annotations: annotations set by the service.
    """

    id: str
    name: str | None = None
    replicas: int | None = None
    ready_replicas: int | None = None
    description: str | None = None
    group_id: str | None = None
    node_ids: tuple[str, ...] = ()
    tags: tuple[Tag, ...] = ()
    api_version: str | None = None
    source: str | None = _words("iem", "userdefined", "userdefine")
    project_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    template: PodTemplate | None = None
    state: str | None = _words("FREEZE", "PENDING_DELETE", "DELETE_FAILED")
    source_id: str | None = None
    annotations: DeploymentAnnotations | None = None


# ---- nodes and groups --------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LogConfig(Value):
    """How one kind of log of a node is stored.

    Attributes:
        id: its id.
        size: MB of a file.
        level: what is logged.
        rotate_num: how many files are kept.
        rotate_period: how often a new file is started.
        type: where it is stored.
        component: ``app`` or ``system``.
    """

    id: str | None = None
    size: int | None = None
    level: str | None = None
    rotate_num: int | None = None
    rotate_period: str | None = None
    type: str | None = None
    component: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeviceInfo(Value):
    """Devices bound to a node.

    Attributes:
        relation: their relation to the node.
        comment: a comment.
        device_ids: the devices.
    """

    relation: str | None = None
    comment: str | None = None
    device_ids: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class GpuInfo(Value):
    """A GPU of a node.

    Attributes:
        name: its name.
        type: its model.
        capacity: its memory.
    """

    name: str | None = None
    type: str | None = None
    capacity: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NpuInfo(Value):
    """An NPU of a node.

    Attributes:
        name: its name.
        type: its model.
        capacity: its capacity.
        driver_version: the version of its driver.
    """

    name: str | None = None
    type: str | None = None
    capacity: str | None = None
    driver_version: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Nic(Value):
    """A network card of a node.

    Attributes:
        interface: its name.
        ip: its address.
    """

    interface: str | None = None
    ip: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class UpgradeRecord(Value):
    """One upgrade of a node's software.

    Attributes:
        id: its number.
        from_version: the version before; left out of the first record.
        to_version: the version after.
        upgrade_time: seconds since 1970.
        result: the outcome.
        dur_time: how many seconds it took.
    """

    id: int | None = None
    from_version: str | None = None
    to_version: str | None = None
    upgrade_time: int | None = None
    result: str | None = None
    dur_time: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NtpConfigs(Value):
    """The NTP settings of a node.

    Attributes:
        ntp_enabled: whether NTP is on.
        ntp_servers: the servers.
    """

    ntp_enabled: bool | None = None
    ntp_servers: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeStateDetails(Value):
    """The state of the registration of a node.

    Attributes:
        register_stat: the state of its registration.
        purchase_stat: the state of its purchase.
        purchase_error: the error of its purchase.
    """

    register_stat: str | None = None
    purchase_stat: str | None = None
    purchase_error: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Node(_Dated):
    """An edge node. No ``repr`` shows its secrets.

    Attributes:
        id: its uuid: what ``iter_pods(node_ids=…)`` takes.
        name: its name.
        description: its description.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        project_id: its project.
        private_key: a secret; no ``repr`` shows it.
        certificate: a secret; no ``repr`` shows it.
        ca: a secret; no ``repr`` shows it. May be None.
        state: ``RUNNING``, ``FAIL``, ``UPGRADING``, ``STOPPED``, ``UNCONNECTED``; also ``FREEZE``,
            which the filter does not accept.
        package: its configuration, a secret; no ``repr`` shows it.
        master_addr: the address it reports to.
        cpu: cores.
        memory: MB.
        os_name: its operating system.
        os_version: the version of its operating system.
        pause_docker_image: the image of the pause container.
        arch: its architecture.
        os_type: the kind of its operating system.
        deployment_num: how many pods are on it.
        enable_gpu: whether GPUs are used.
        log_configs: how logs are stored.
        device_infos: devices bound to it.
        edged_version: version of its agent.
        gpu_num: GPUs.
        host_ips: its addresses.
        relation: the relation of a device to it.
        comment: a comment.
        gpu_info: its GPUs.
        device_num: how many devices are bound to it.
        enable_npu: whether NPUs are used.
        npu_type: the model of its NPUs.
        nics: its network cards.
        host_name: its name in its own network.
        ief_node_version: version of its software.
        upgrade_flag: whether it may be upgraded.
        product_id: the product it was registered with.
        group_ids: the node groups it is in.
        upgrade_history: its upgrades.
        attributes: attributes set by users; up to 32.
        docker_enable: whether it runs containers.
        mqtt_mode: ``internal`` or ``external``.
        mqtt_external: address of the external broker.
        mqtt_internal: address of the internal broker.
        node_type: its kind.
        ntp_configs: its NTP settings.
        error_reason: a short error message.
        tags: its tags; up to 20.
        npu_num: NPUs.
        npu_info: its NPUs.
        container_runtime_version: version of its container runtime.
        identifier: a secret; no ``repr`` shows it.
        purchase_id: the id of its purchase.
        state_details: the state of its registration.
        cert_remaining_valid_time: how long its certificate remains valid.
    """

    id: str
    name: str | None = None
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    project_id: str | None = None
    private_key: str | None = attrs.field(default=None, repr=False)
    certificate: str | None = attrs.field(default=None, repr=False)
    ca: str | None = attrs.field(default=None, repr=False)
    state: str | None = _words("RUNNING", "FAIL", "UPGRADING", "STOPPED", "UNCONNECTED", "FREEZE")
    package: str | None = attrs.field(default=None, repr=False)
    master_addr: str | None = None
    cpu: int | None = None
    memory: int | None = None
    os_name: str | None = None
    os_version: str | None = None
    pause_docker_image: str | None = None
    arch: str | None = None
    os_type: str | None = None
    deployment_num: int | None = None
    enable_gpu: bool | None = None
    log_configs: tuple[LogConfig, ...] = ()
    device_infos: tuple[DeviceInfo, ...] = ()
    edged_version: str | None = None
    gpu_num: int | None = None
    host_ips: tuple[str, ...] = ()
    relation: str | None = None
    comment: str | None = None
    gpu_info: tuple[GpuInfo, ...] = ()
    device_num: int | None = None
    enable_npu: bool | None = None
    npu_type: str | None = None
    nics: tuple[Nic, ...] = ()
    host_name: str | None = None
    ief_node_version: str | None = None
    upgrade_flag: bool | None = None
    product_id: str | None = None
    group_ids: tuple[str, ...] = ()
    upgrade_history: tuple[UpgradeRecord, ...] = ()
    attributes: tuple[Tag, ...] = ()
    docker_enable: bool | None = None
    mqtt_mode: str | None = _words("internal", "external")
    mqtt_external: str | None = None
    mqtt_internal: str | None = None
    node_type: str | None = None
    ntp_configs: NtpConfigs | None = None
    error_reason: str | None = None
    tags: tuple[Tag, ...] = ()
    npu_num: int | None = None
    npu_info: tuple[NpuInfo, ...] = ()
    container_runtime_version: str | None = None
    identifier: str | None = attrs.field(default=None, repr=False)
    purchase_id: str | None = None
    state_details: NodeStateDetails | None = None
    cert_remaining_valid_time: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Group(_Dated):
    """A node group of a platinum (enterprise) instance.

    Attributes:
        id: its uuid: what ``iter_pods(group_ids=…)`` takes.
        name: up to 32 characters.
        description: its description.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        project_id: its project.
        iam_role: its role.
        cpu: cores of all its nodes.
        memory: MB of all its nodes.
        gpu_num: GPUs of all its nodes.
        nodes: its nodes.
        deployments: the deployments on it: id, name, description, project and times.
        attributes: attributes set by users.
        tags: its tags.
        success_node_add: nodes that were added.
        success_node_del: nodes that were removed.
        failed_node_add: nodes that could not be added.
        failed_node_del: nodes that could not be removed.
    """

    id: str
    name: str | None = None
    description: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    project_id: str | None = None
    iam_role: str | None = None
    cpu: int | None = None
    memory: int | None = None
    gpu_num: int | None = None
    nodes: tuple[Node, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    attributes: tuple[Tag, ...] = ()
    tags: tuple[Tag, ...] = ()
    success_node_add: tuple[str, ...] = ()
    success_node_del: tuple[str, ...] = ()
    failed_node_add: tuple[str, ...] = ()
    failed_node_del: tuple[str, ...] = ()


# ---- instances ---------------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Instance(_Dated):
    """A platinum (enterprise) instance (ListIefInstances); the document explains few of its fields.

    Attributes:
        id: what `IefSession` takes as `instance_id`.
        name: its name.
        domain_id: its account.
        project_id: its project.
        dimension: its scale.
        edition: its edition.
        version: its version.
        cluster_id: its cluster.
        bandwidth: its bandwidth.
        k8s_version: version of its Kubernetes.
        access_domain: the host that nodes connect to.
        telemetry_domain: the host that nodes report to.
        access_eip: the address of `access_domain`.
        status: its state.
        percentage: the progress of its creation.
        tasks: its running tasks: a string in one document, a list of objects in a newer one.
        created_at: when it was created, as the server wrote it; see `created`.
        updated_at: when it last changed, as the server wrote it; see `updated`.
        node_used_count: how many nodes it has.
        tags: its tags, also a string or a list of objects.
        quota: how many nodes it may have.
        type: its kind.
        stargate_domain: a further host.
        stargate_endpoint: the endpoint of `stargate_domain`.
        stargate_eip: the address of `stargate_domain`.
        cluster_az: the zone of its cluster.
        support_functions: the functions it supports.
        framework: its architecture.
        billing_mode: its billing mode.
        node_manage_mode: how nodes are managed.
        sku_code: the code of the product.
        metadata: other data.
        cbc_state: the state of its order.
        cbc_node_state: the state of the order of its nodes.
    """

    id: str
    name: str | None = None
    domain_id: str | None = None
    project_id: str | None = None
    dimension: str | None = None
    edition: str | None = None
    version: str | None = None
    cluster_id: str | None = None
    bandwidth: str | None = None
    k8s_version: str | None = None
    access_domain: str | None = None
    telemetry_domain: str | None = None
    access_eip: str | None = None
    status: str | None = None
    percentage: str | None = None
    tasks: Any = attrs.field(default=None, hash=False)
    created_at: str | None = None
    updated_at: str | None = None
    node_used_count: str | None = None
    tags: Any = attrs.field(default=None, hash=False)
    quota: str | None = None
    type: str | None = None
    stargate_domain: str | None = None
    stargate_endpoint: str | None = None
    stargate_eip: str | None = None
    cluster_az: str | None = None
    support_functions: str | None = None
    framework: str | None = None
    billing_mode: str | None = None
    node_manage_mode: str | None = None
    sku_code: str | None = None
    metadata: str | None = None
    cbc_state: str | None = None
    cbc_node_state: str | None = None


# ---- answers, and times -------------------------------------------------------------------------


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PodList(Value):
    """A whole response (table 4). A session turns it into a `Page`.

    Attributes:
        count: how many application instances there are in total, not on this page.
        pods: the application instances of this page.
    """

    count: int | None = None
    pods: tuple[Pod, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ErrorBody(Value):
    """The body of an error (tables 16 and 17).

    Attributes:
        error_code: such as ``IEF.100001``, or ``APIGW.0308`` from the gateway.
        error_msg: what went wrong; the wording may change.
    """

    error_code: str | None = None
    error_msg: str | None = None


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
