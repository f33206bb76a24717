"""What type checkers must see of what the service says. Never run, only checked."""

from datetime import datetime
from typing import Any, assert_type

from ief_async import (
    Affinity,
    Container,
    ContainerTemplate,
    Deployment,
    DeploymentAnnotations,
    DeviceInfo,
    Env,
    EnvTemplate,
    ErrorBody,
    Exec,
    GpuInfo,
    Group,
    HttpGet,
    Instance,
    KeyRef,
    LabelSelector,
    LogConfig,
    MatchExpression,
    Nic,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorTerm,
    NodeStateDetails,
    NpuInfo,
    NtpConfigs,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodConfigs,
    PodList,
    PodTemplate,
    Port,
    PortRange,
    PortTemplate,
    PreferredNodeTerm,
    Probe,
    ResourceAmounts,
    Resources,
    Tag,
    UpgradeRecord,
    ValueFrom,
    Volume,
    WeightedPodAffinityTerm,
)


def pod(one: Pod) -> None:
    """A pod and its parts."""
    assert_type(one.id, str)
    assert_type(one.state, str | None)
    assert_type(one.created_at, str | None)
    assert_type(one.created, datetime | None)
    assert_type(one.updated, datetime | None)
    assert_type(one.configs, PodConfigs | None)
    assert_type(one.affinity, Affinity | None)
    assert_type(one.containers, tuple[Container, ...])
    assert_type(one.init_containers, tuple[Container, ...])


def container(one: Container) -> None:
    """A container and its parts."""
    assert_type(one.args, tuple[str, ...])
    assert_type(one.restarts, int | None)
    assert_type(one.privileged, bool | None)
    assert_type(one.npu_type, str | None)
    assert_type(one.envs, tuple[Env, ...])
    assert_type(one.ports, tuple[Port, ...])
    assert_type(one.ports[0].host_port, int | None)
    assert_type(one.volumes, tuple[Volume, ...])
    assert_type(one.resources, Resources | None)
    assert_type(one.liveness_probe, Probe | None)


def parts(probe: Probe, resources: Resources) -> None:
    """The parts of a container, and theirs."""
    assert_type(probe.http_get, HttpGet | None)
    assert_type(probe.exec, Exec | None)
    assert_type(resources.limits, ResourceAmounts | None)
    assert_type(ResourceAmounts(cpu=1).cpu, float | None)


def affinity(one: Affinity, nodes: NodeAffinity, pods: PodAffinity) -> None:
    """Affinity, by its keys on the wire."""
    assert_type(one.nodeAffinity, NodeAffinity | None)
    assert_type(one.podAffinity, PodAffinity | None)
    assert_type(one.podAntiAffinity, PodAffinity | None)
    assert_type(
        nodes.preferredDuringSchedulingIgnoredDuringExecution, tuple[PreferredNodeTerm, ...]
    )
    assert_type(nodes.requiredDuringSchedulingIgnoredDuringExecution, NodeSelector | None)
    assert_type(
        pods.preferredDuringSchedulingIgnoredDuringExecution, tuple[WeightedPodAffinityTerm, ...]
    )
    assert_type(pods.requiredDuringSchedulingIgnoredDuringExecution, tuple[PodAffinityTerm, ...])


def terms(
    node: PreferredNodeTerm,
    nodes: NodeSelector,
    pods: WeightedPodAffinityTerm,
    pod: PodAffinityTerm,
    labels: LabelSelector,
) -> None:
    """Terms of an affinity, down to their labels."""
    assert_type(node.preference, NodeSelectorTerm | None)
    assert_type(nodes.nodeSelectorTerms, tuple[NodeSelectorTerm, ...])
    assert_type(nodes.nodeSelectorTerms[0].matchExpressions, tuple[MatchExpression, ...])
    assert_type(pods.podAffinityTerm, PodAffinityTerm | None)
    assert_type(pod.labelSelector, LabelSelector | None)
    assert_type(labels.matchLabels, dict[str, str])


def deployment(
    one: Deployment, template: PodTemplate, container: ContainerTemplate, value: ValueFrom
) -> None:
    """A deployment, and the template of its pods."""
    assert_type(one.id, str)
    assert_type(one.created, datetime | None)
    assert_type(one.node_ids, tuple[str, ...])
    assert_type(one.tags, tuple[Tag, ...])
    assert_type(one.template, PodTemplate | None)
    assert_type(one.annotations, DeploymentAnnotations | None)
    assert_type(template.containers, tuple[ContainerTemplate, ...])
    assert_type(container.envs, tuple[EnvTemplate, ...])
    assert_type(container.envs[0].value_from, ValueFrom | None)
    assert_type(value.secret, KeyRef | None)
    assert_type(container.ports, tuple[PortTemplate, ...])
    assert_type(container.ports[0].host_port_range, PortRange | None)


def node(one: Node, group: Group) -> None:
    """A node and its parts, and a group of nodes."""
    assert_type(one.id, str)
    assert_type(one.created, datetime | None)
    assert_type(one.deployment_num, int | None)
    assert_type(one.log_configs, tuple[LogConfig, ...])
    assert_type(one.device_infos, tuple[DeviceInfo, ...])
    assert_type(one.gpu_info, tuple[GpuInfo, ...])
    assert_type(one.npu_info, tuple[NpuInfo, ...])
    assert_type(one.nics, tuple[Nic, ...])
    assert_type(one.upgrade_history, tuple[UpgradeRecord, ...])
    assert_type(one.ntp_configs, NtpConfigs | None)
    assert_type(one.state_details, NodeStateDetails | None)
    assert_type(group.id, str)
    assert_type(group.nodes, tuple[Node, ...])
    assert_type(group.deployments, tuple[Deployment, ...])


def instance(one: Instance) -> None:
    """A platinum instance; what no document describes is anything."""
    assert_type(one.id, str)
    assert_type(one.status, str | None)
    assert_type(one.tags, Any)


def documents(pods: PodList, error: ErrorBody) -> None:
    """What the service sends as a whole."""
    assert_type(pods.count, int | None)
    assert_type(pods.pods, tuple[Pod, ...])
    assert_type(error.error_code, str | None)


def made() -> None:
    """All but an id may be left out when one is made by hand."""
    assert_type(Pod(id="p"), Pod)
    assert_type(Pod(id="p", state="RUNNING", containers=(Container(),)), Pod)
    assert_type(Node(id="n", state="RUNNING"), Node)
    assert_type(Deployment(id="d", tags=(Tag(key="k", value="v"),)), Deployment)
