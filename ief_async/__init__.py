"""Stream every pod of a Huawei Cloud IEF fleet with asyncio: concurrent, typed, bounded.

A module is imported when one of its names is first used, so a command that shows its help, or a
worker that unpickles a pod, does not load aiohttp.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ief_async._auth import AccessKey, EcsMetadata, PasswordCredentials, Token
    from ief_async._checkpoint import (
        ScanCheckpoint,
    )
    from ief_async._errors import (
        ApiError,
        AuthenticationError,
        BadRequestError,
        BatchFailure,
        CheckpointError,
        ConfigurationError,
        DriftError,
        IefError,
        NotFoundError,
        PartialScanError,
        PayloadError,
        PermissionDeniedError,
        ServerError,
        TargetFailure,
        ThrottledError,
        TransportError,
    )
    from ief_async._events import (
        BatchDone,
        DriftSeen,
        Event,
        LimitClamped,
        PageReady,
        RequestFinished,
        RequestRetried,
        RequestStarted,
        ScanEnded,
        ScanStarted,
        Throttled,
        TokenRefreshed,
    )
    from ief_async._fleet import (
        Target,
        scan_fleet,
    )
    from ief_async._models import (
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
        sparse,
    )
    from ief_async._paging import BatchReport
    from ief_async._policies import Limits, RetryPolicy, Timeouts
    from ief_async._scan import Page, ScanProgress, ScanReport, Stream
    from ief_async._session import (
        IefSession,
        PodCount,
        SessionStatistics,
    )

__version__ = "0.1.0"

__all__ = [
    "AccessKey",
    "Affinity",
    "ApiError",
    "AuthenticationError",
    "BadRequestError",
    "BatchDone",
    "BatchFailure",
    "BatchReport",
    "CheckpointError",
    "ConfigurationError",
    "Container",
    "ContainerTemplate",
    "Deployment",
    "DeploymentAnnotations",
    "DeviceInfo",
    "DriftError",
    "DriftSeen",
    "EcsMetadata",
    "Env",
    "EnvTemplate",
    "ErrorBody",
    "Event",
    "Exec",
    "GpuInfo",
    "Group",
    "HttpGet",
    "IefError",
    "IefSession",
    "Instance",
    "KeyRef",
    "LabelSelector",
    "LimitClamped",
    "Limits",
    "LogConfig",
    "MatchExpression",
    "Nic",
    "Node",
    "NodeAffinity",
    "NodeSelector",
    "NodeSelectorTerm",
    "NodeStateDetails",
    "NotFoundError",
    "NpuInfo",
    "NtpConfigs",
    "Page",
    "PageReady",
    "PartialScanError",
    "PasswordCredentials",
    "PayloadError",
    "PermissionDeniedError",
    "Pod",
    "PodAffinity",
    "PodAffinityTerm",
    "PodConfigs",
    "PodCount",
    "PodList",
    "PodTemplate",
    "Port",
    "PortRange",
    "PortTemplate",
    "PreferredNodeTerm",
    "Probe",
    "RequestFinished",
    "RequestRetried",
    "RequestStarted",
    "ResourceAmounts",
    "Resources",
    "RetryPolicy",
    "ScanCheckpoint",
    "ScanEnded",
    "ScanProgress",
    "ScanReport",
    "ScanStarted",
    "ServerError",
    "SessionStatistics",
    "Stream",
    "Tag",
    "Target",
    "TargetFailure",
    "Throttled",
    "ThrottledError",
    "Timeouts",
    "Token",
    "TokenRefreshed",
    "TransportError",
    "UpgradeRecord",
    "ValueFrom",
    "Volume",
    "WeightedPodAffinityTerm",
    "scan_fleet",
    "sparse",
]

# Where names are that need other libraries, and by that most of the package.
_HOMES = {
    "AccessKey": "_auth",
    "BatchReport": "_paging",
    "EcsMetadata": "_auth",
    "IefSession": "_session",
    "Limits": "_policies",
    "Page": "_scan",
    "PasswordCredentials": "_auth",
    "PodCount": "_session",
    "RetryPolicy": "_policies",
    "ScanProgress": "_scan",
    "ScanReport": "_scan",
    "SessionStatistics": "_session",
    "Stream": "_scan",
    "Target": "_fleet",
    "Timeouts": "_policies",
    "Token": "_auth",
    "scan_fleet": "_fleet",
}
# All others are in one of these: from the lowest layer up, so that a name imports what it needs.
_MODULES = ("_errors", "_events", "_models", "_checkpoint")

if not TYPE_CHECKING:  # with `__getattr__`, a type checker would accept any name

    def __getattr__(name: str) -> object:
        if name in __all__:
            for module in [_HOMES[name]] if name in _HOMES else _MODULES:
                home = import_module(f"{__name__}.{module}")
                if name in vars(home) or name in getattr(home, "__all__", ()):
                    globals()[name] = getattr(home, name)
                    return globals()[name]
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
