"""The hosts of the regions, and validation of endpoints."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ief_async._errors import ConfigurationError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

PREFIX = "HUAWEICLOUD_SDK_"
REGION = f"{PREFIX}REGION_IEF_"
DEFAULT_PORTS = {"http": 80, "https": 443}

# The regions with a documented API host. The SDKs and the endpoint page spell three of the hosts
# differently, so both are listed: the second is used if the first can't be resolved.
REGIONS: Mapping[str, tuple[str, ...]] = {
    "cn-north-1": ("ief", "ief2"),
    "cn-north-4": ("ief", "ief2"),
    "cn-east-2": ("ief", "ief2"),
    "cn-east-3": ("ief",),
    "cn-south-1": ("ief",),
}
# The regions in which IAM has a host of its own; the global host serves the others.
IAM_REGIONS = frozenset(
    """
    cn-north-1 cn-north-2 cn-north-4 cn-north-9 cn-north-12 cn-east-2 cn-east-3 cn-east-4 cn-east-5
    cn-south-1 cn-south-2 cn-southwest-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4
    af-south-1 sa-brazil-1 la-south-2 la-north-2 na-mexico-1 eu-west-0 my-kualalumpur-1 ru-moscow-1
    me-east-1 ae-ad-1 tr-west-1
    """.split()  # noqa: SIM905  27 quoted words are no easier to read
)


class _RegionEntry(msgspec.Struct):
    """A region in ``regions.yaml``, as the official SDK reads it."""

    id: str | None = None
    endpoint: str | None = None
    endpoints: list[str] | None = None


def endpoints_of(region: str | None) -> tuple[str, ...]:
    """Return the addresses of IEF in a region, in the order to try them.

    Raises:
        ConfigurationError: the region is unknown, or its setting is not an endpoint.
    """
    overrides = _overrides()
    if region is None and len(overrides) == 1:
        (region,) = overrides
    if isinstance(region, str) and region in overrides:
        name, texts = overrides[region]
        return tuple(dict.fromkeys(check_endpoint(name, text) for text in texts))
    if isinstance(region, str) and region in REGIONS:
        return tuple(f"https://{host}.{region}.myhuaweicloud.com" for host in REGIONS[region])
    known = ", ".join(REGIONS)
    variable = _variable(region) if isinstance(region, str) else f"{REGION}CN_NORTH_4"
    message = (
        f"region must be one of {known}, got {region!r:.80}; for any other give "
        f"endpoint='https://…' with the API host of your region, or set {variable:.80}"
    )
    raise ConfigurationError(message)


def known_region() -> str | None:
    """Return the region that variables or files name, if they name exactly one."""
    overrides = _overrides()
    return next(iter(overrides)) if len(overrides) == 1 else None


def _variable(region: str) -> str:
    return REGION + region.replace("-", "_").upper()


def _overrides() -> dict[str, tuple[str, list[str]]]:
    """Return each overridden region with the name of the setting, and its endpoints."""
    overrides = {entry_id: (name, texts) for entry_id, name, texts in _regions_file()}
    for name, value in sorted(os.environ.items()):
        if name.startswith(REGION) and value:
            region = name.removeprefix(REGION).replace("_", "-").lower()
            overrides[region] = (name, [text.strip() for text in value.split(",")])
    return overrides


def _regions_file() -> list[tuple[str, str, list[str]]]:
    path = file_of("REGIONS_FILE", "regions.yaml")
    try:
        if not path.is_file():
            return []
        said = msgspec.yaml.decode(path.read_bytes(), type=dict[str, Any] | None) or {}
        own = [said[service] for service in said if service.upper() == "IEF"]
        entries = [entry for some in own for entry in msgspec.convert(some, list[_RegionEntry])]
    except ImportError:
        problem = "needs PyYAML: pip install 'ief-async[yaml]', or give endpoint="
    except (OSError, msgspec.MsgspecError, ValueError) as error:  # ValueError: an invalid date
        problem = f"can't be read as regions: {error}"
    else:
        return [
            (entry.id, str(path), [*(entry.endpoints or ()), *filter(None, [entry.endpoint])])
            for entry in entries
            if entry.id and (entry.endpoint or entry.endpoints)
        ]
    message = f"{path} {problem}"
    raise ConfigurationError(message)


def iam_endpoint_of(region: str | None, given: str | None) -> str:
    """Return the address of IAM: the argument, the variable, the region's, or the global one."""
    name = f"{PREFIX}IAM_ENDPOINT"
    if given is not None:
        return check_endpoint("iam_endpoint", given)
    if os.environ.get(name):
        return check_endpoint(name, os.environ[name])
    part = f".{region}" if region in IAM_REGIONS else ""
    return f"https://iam{part}.myhuaweicloud.com"


def check_endpoint(name: str, endpoint: str) -> str:
    """Return ``scheme://host[:port]`` without a trailing slash, or raise an error."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
        extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    except (ValueError, AttributeError, TypeError):
        host, port, extra, parts = "", None, "", urlsplit("")
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
    if not (secure and re.fullmatch(r"[0-9a-z.:-]+", host)) or extra:
        # a user, a query or a fragment may contain a secret
        shown = re.sub("//.*@|[?#].*", "***", repr(endpoint))
        message = (
            f"{name} must be https://host or https://host:port (http on loopback only; a non-ASCII "
            f"host in its xn-- form), got {shown:.200}"
        )
        raise ConfigurationError(message)
    host = f"[{host}]" if ":" in host else host
    shown_port = f":{port}" if port and port != DEFAULT_PORTS[parts.scheme] else ""
    return f"{parts.scheme}://{host}{shown_port}"


def file_of(variable: str, name: str) -> Path:
    given = os.environ.get(PREFIX + variable)
    if given:
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:  # such as in a container whose user has no name
        home = Path("/nonexistent")
    return home / ".huaweicloud" / name
