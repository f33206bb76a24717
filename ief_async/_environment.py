"""What the official SDK's variables and files say: who asks, and where the service answers.

Names and order are the official SDK's own. Of regions a variable wins over a file, and that over
the table here; credentials come from one place, with the project and IAM's endpoint beside them.
"""

import configparser
import logging
import os
import re
from base64 import b64encode
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs
import msgspec

from ief_async._credentials import (
    LOOPBACK,
    AccessKey,
    Credentials,
    EcsMetadata,
    Grant,
    Reply,
    Request,
    Scope,
    Secret,
)
from ief_async._errors import ConfigurationError, IefError
from ief_async._observer import write

PREFIX = "HUAWEICLOUD_SDK_"
REGION = f"{PREFIX}REGION_IEF_"
PROFILE = "basic"  # the section for services of a region
DEFAULT_PORTS = {"http": 80, "https": 443}

# The regions with a documented API host. The SDKs and the endpoint page spell three of the hosts
# differently, so both are known: the second is used where the first has no address.
REGIONS: Mapping[str, tuple[str, ...]] = {
    "cn-north-1": ("ief", "ief2"),
    "cn-north-4": ("ief", "ief2"),
    "cn-east-2": ("ief", "ief2"),
    "cn-east-3": ("ief",),
    "cn-south-1": ("ief",),
}
# The regions in which IAM has a host of its own; the global one knows the others.
IAM_REGIONS = frozenset(
    """
    cn-north-1 cn-north-2 cn-north-4 cn-north-9 cn-north-12 cn-east-2 cn-east-3 cn-east-4 cn-east-5
    cn-south-1 cn-south-2 cn-southwest-2 ap-southeast-1 ap-southeast-2 ap-southeast-3 ap-southeast-4
    af-south-1 sa-brazil-1 la-south-2 la-north-2 na-mexico-1 eu-west-0 my-kualalumpur-1 ru-moscow-1
    me-east-1 ae-ad-1 tr-west-1
    """.split()  # noqa: SIM905  27 quoted words are no easier to read
)


# ---- where the service answers -----------------------------------------------------------------


class _RegionEntry(msgspec.Struct):
    """A region in ``regions.yaml``, as the official SDK reads it."""

    id: str | None = None
    endpoint: str | None = None
    endpoints: list[str] | None = None


def endpoints_of(region: str | None) -> tuple[str, ...]:
    """Return where IEF answers in a region; what comes first is tried first.

    Raises:
        ConfigurationError: the region is not known, or what is said of it is no endpoint.
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
        f"region takes one of {known}, but was given {region!r:.80}; for any other give "
        f"endpoint='https://…' with the API host of your region, or set {variable:.80}"
    )
    raise ConfigurationError(message)


def known_region() -> str | None:
    """Return the region that variables or files name, if they name just one."""
    overrides = _overrides()
    return next(iter(overrides)) if len(overrides) == 1 else None


def _variable(region: str) -> str:
    return REGION + region.replace("-", "_").upper()


def _overrides() -> dict[str, tuple[str, list[str]]]:
    """Return for each region that is redefined by whom it is, and its endpoints."""
    overrides = {entry_id: (name, texts) for entry_id, name, texts in _regions_file()}
    for name, value in sorted(os.environ.items()):
        if name.startswith(REGION) and value:
            region = name.removeprefix(REGION).replace("_", "-").lower()
            overrides[region] = (name, [text.strip() for text in value.split(",")])
    return overrides


def _regions_file() -> list[tuple[str, str, list[str]]]:
    path = _path("REGIONS_FILE", "regions.yaml")
    try:
        if not path.is_file():
            return []
        said = msgspec.yaml.decode(path.read_bytes(), type=dict[str, Any] | None) or {}
        own = [said[service] for service in said if service.upper() == "IEF"]
        entries = [entry for some in own for entry in msgspec.convert(some, list[_RegionEntry])]
    except ImportError:
        problem = "needs PyYAML: pip install 'ief-async[yaml]', or give endpoint="
    except (OSError, msgspec.MsgspecError, ValueError) as error:  # a date that is none, too
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
    """Return where IAM answers: as given, as the variable says, in the region, or globally."""
    name = f"{PREFIX}IAM_ENDPOINT"
    if given is not None:
        return check_endpoint("iam_endpoint", given)
    if os.environ.get(name):
        return check_endpoint(name, os.environ[name])
    part = f".{region}" if region in IAM_REGIONS else ""
    return f"https://iam{part}.myhuaweicloud.com"


def check_endpoint(name: str, endpoint: str) -> str:
    """Return ``scheme://host[:port]`` without a slash at its end, or refuse what is no such."""
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
        extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    except (ValueError, AttributeError, TypeError):
        host, port, extra, parts = "", None, "", urlsplit("")
    secure = parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)
    if not (secure and re.fullmatch(r"[0-9a-z.:-]+", host)) or extra:
        # a user, a query or a fragment may hold a secret
        shown = re.sub("//.*@|[?#].*", "***", repr(endpoint))
        message = (
            f"{name} takes https://host or https://host:port (http on loopback only; a host of "
            f"other letters in its xn-- form), but was given {shown:.200}"
        )
        raise ConfigurationError(message)
    host = f"[{host}]" if ":" in host else host
    shown_port = f":{port}" if port and port != DEFAULT_PORTS[parts.scheme] else ""
    return f"{parts.scheme}://{host}{shown_port}"


# ---- through what ------------------------------------------------------------------------------


@attrs.frozen
class Proxy:
    """An HTTP proxy that tunnels TLS; who may use it is a secret.

    Attributes:
        url: where it is, without user and password.
        authorization: what is sent as ``Proxy-Authorization``, to the proxy alone, or None.
    """

    url: str
    authorization: Secret | None = None
    _secrets: tuple[Secret, ...] = attrs.field(default=(), repr=False)

    def scrub(self, text: str) -> str:
        """Return `text` without user and password in any form that they are sent in."""
        for secret in self._secrets:
            text = secret.scrub(text)
        return text


def check_proxy(name: str, proxy: object) -> Proxy:
    """Return the proxy that a URL names, or refuse what is no such."""
    try:
        parts = urlsplit(proxy if isinstance(proxy, str) else "")
        host, port = parts.hostname or "", parts.port
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        parts, host, port, user, password = urlsplit(""), "", None, "", ""
    whole = re.fullmatch(r"[0-9a-z._:-]+", host) and parts.netloc.isprintable()
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in DEFAULT_PORTS or not whole or extra:
        scheme, _, rest = str(proxy).partition("://")
        shown = f"{scheme}://***" if rest else type(proxy).__name__
        del proxy, parts, user, password, rest  # no traceback is to show them
        message = (
            f"{name} takes the URL of an HTTP proxy, http://[user:password@]host[:port], but was "
            f"given {shown:.80}"
        )
        raise ConfigurationError(message)
    host = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{host}:{port or DEFAULT_PORTS[parts.scheme]}"
    if not (user or password):
        return Proxy(url)
    basic = b64encode(f"{user}:{password}".encode()).decode()
    texts = (basic, f"{user}:{password}", parts.netloc.rpartition("@")[0], password)
    return Proxy(url, Secret(f"Basic {basic}"), tuple(Secret(text) for text in texts))


def proxy_of_environment(host: str, port: int) -> Proxy | None:
    """Return the proxy that ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` name for a host.

    On macOS and Windows the system's settings stand in for variables that are not set.
    """
    proxies = getproxies()
    name = next((name for name in ("https", "all") if proxies.get(name)), None)
    if name is None or proxy_bypass(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"):
        return None
    text = proxies[name]
    return check_proxy(f"{name.upper()}_PROXY", text if "://" in text else f"http://{text}")


# ---- who asks ----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Found:
    """Credentials that were found, and what stood beside them."""

    credentials: Credentials
    project_id: str | None = None
    iam_endpoint: str | None = None


@attrs.frozen
class _LastResort:
    """The keys of the server that this may run on, as nothing else was found."""

    for_any_project: ClassVar[bool] = True

    looked_at: tuple[str, ...]
    advice: ClassVar[str] = EcsMetadata.advice

    def obtain(self, scope: Scope) -> Generator[Request, Reply, Grant]:
        """Ask the metadata service; if it gives nothing, say where else was looked."""
        metadata = EcsMetadata()
        try:
            return (yield from metadata.obtain(scope))
        except IefError as error:
            problem = str(error)
        places = "; ".join((*self.looked_at, f"{metadata.endpoint}: {problem}"))
        message = f"none were found: set {PREFIX}AK and {PREFIX}SK. Looked at {places}"
        raise ConfigurationError(message)

    def scrub(self, text: str) -> str:
        """Return `text`: nothing was found."""
        return text


def find_credentials(profile: str | None) -> Found:
    """Look for credentials in the environment, in the profile file, and at last on the server.

    A `profile` that is named has to be there.
    """
    looked_at = []
    for look in (_in_environment, _in_file) if profile is None else (_in_file,):
        where, found = look(profile or PROFILE)
        if isinstance(found, Found):
            write(logging.INFO, "credentials found in %s", where)
            return found
        looked_at.append(f"{where}: {found}")
    if profile is not None:
        message = f"no credentials were found in {looked_at[0]}"
        raise ConfigurationError(message)
    write(
        logging.INFO,
        "no credentials found in variables and files; asking the metadata service",
    )
    project_id = os.environ.get(f"{PREFIX}PROJECT_ID") or None
    return Found(credentials=_LastResort(tuple(looked_at)), project_id=project_id)


def _in_environment(_: str) -> tuple[str, Found | str]:
    names = ("AK", "SK", "SECURITY_TOKEN", "PROJECT_ID", "IDP_ID")
    said = {name.lower(): Secret(os.environ.get(PREFIX + name, "")) for name in names}
    return f"the environment ({PREFIX}AK, {PREFIX}SK)", _found(said)


def _in_file(profile: str) -> tuple[str, Found | str]:
    path = _path("CREDENTIALS_FILE", "credentials")
    where = f"{path} (section [{profile}])"
    parser = configparser.RawConfigParser()  # a % in a secret stands for itself
    try:
        with path.open(encoding="utf-8-sig") as file:
            parser.read_file(file)
    except FileNotFoundError:
        return where, "no such file"
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        problem = type(error).__name__  # its text may quote a line
    else:
        problem = ""
    if problem:
        message = f"{path} can't be read as a profile file ({problem}): mend or move it"
        raise ConfigurationError(message)
    if not parser.has_section(profile):
        return where, f"no such section (there are: {', '.join(parser.sections()) or 'none'})"
    return where, _found({name: Secret(value) for name, value in parser.items(profile)})


def _found(said: Mapping[str, Secret]) -> Found | str:
    """Read what a place says; a text says what is missing."""
    given = {name: value for name, value in said.items() if value.reveal()}
    missing = [name for name in ("ak", "sk") if name not in given]
    if missing:
        federated = " (an identity provider is set, which is not supported)"
        return f"no {' and no '.join(missing)}" + (federated if "idp_id" in given else "")
    project_id, iam_endpoint = (given.get(name) for name in ("project_id", "iam_endpoint"))
    return Found(
        credentials=AccessKey(given["ak"], given["sk"], given.get("security_token")),
        project_id=project_id.reveal() if project_id else None,
        iam_endpoint=iam_endpoint.reveal() if iam_endpoint else None,
    )


def _path(variable: str, name: str) -> Path:
    given = os.environ.get(PREFIX + variable)
    if given:
        return Path(given)
    try:
        home = Path.home()
    except RuntimeError:  # as in a container whose user has no name
        home = Path("/nonexistent")
    return home / ".huaweicloud" / name
