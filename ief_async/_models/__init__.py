"""Models of the server's data: one attrs class for each table of the API documents.

``pods`` has what a scan of pods needs. ``others`` is imported when one of its names is first used:
each class takes a quarter of a millisecond.
"""

from typing import TYPE_CHECKING

from ief_async._models.pods import (
    TIMESTAMPS,
    Affinity,
    Container,
    Env,
    Exec,
    HttpGet,
    LabelSelector,
    MatchExpression,
    NodeAffinity,
    NodeSelector,
    NodeSelectorTerm,
    Pod,
    PodAffinity,
    PodAffinityTerm,
    PodConfigs,
    Port,
    PreferredNodeTerm,
    Probe,
    ResourceAmounts,
    Resources,
    Volume,
    WeightedPodAffinityTerm,
    parse_timestamp,
    sparse,
)

if TYPE_CHECKING:
    from ief_async._models.others import (
        ContainerTemplate,
        Deployment,
        DeploymentAnnotations,
        DeviceInfo,
        EnvTemplate,
        ErrorBody,
        GpuInfo,
        Group,
        Instance,
        KeyRef,
        LogConfig,
        Nic,
        Node,
        NodeStateDetails,
        NpuInfo,
        NtpConfigs,
        PodList,
        PodTemplate,
        PortRange,
        PortTemplate,
        Tag,
        UpgradeRecord,
        ValueFrom,
    )

__all__ = [
    "TIMESTAMPS",
    "Affinity",
    "Container",
    "ContainerTemplate",
    "Deployment",
    "DeploymentAnnotations",
    "DeviceInfo",
    "Env",
    "EnvTemplate",
    "ErrorBody",
    "Exec",
    "GpuInfo",
    "Group",
    "HttpGet",
    "Instance",
    "KeyRef",
    "LabelSelector",
    "LogConfig",
    "MatchExpression",
    "Nic",
    "Node",
    "NodeAffinity",
    "NodeSelector",
    "NodeSelectorTerm",
    "NodeStateDetails",
    "NpuInfo",
    "NtpConfigs",
    "Pod",
    "PodAffinity",
    "PodAffinityTerm",
    "PodConfigs",
    "PodList",
    "PodTemplate",
    "Port",
    "PortRange",
    "PortTemplate",
    "PreferredNodeTerm",
    "Probe",
    "ResourceAmounts",
    "Resources",
    "Tag",
    "UpgradeRecord",
    "ValueFrom",
    "Volume",
    "WeightedPodAffinityTerm",
    "parse_timestamp",
    "sparse",
]

if not TYPE_CHECKING:  # with `__getattr__`, a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name in __all__:
            from ief_async._models import others

            return getattr(others, name)
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
