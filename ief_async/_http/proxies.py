"""Proxies: how one is written, and which one the environment names."""

import re
from base64 import b64encode
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import attrs

from ief_async._auth import Secret
from ief_async._errors import ConfigurationError
from ief_async._regions import DEFAULT_PORTS
from ief_async._values import Value


@attrs.frozen(eq=False, repr=False)
class Proxy(Value):
    """An HTTP proxy that tunnels TLS; its user and password are secret.

    Attributes:
        url: where it is, without user and password.
        authorization: what is sent as ``Proxy-Authorization``, to the proxy only, or None.
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
    """Return the proxy that a URL names.

    Raises:
        ConfigurationError: it is not the URL of an HTTP proxy.
    """
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
        del proxy, parts, user, password, rest  # no traceback may show them
        message = (
            f"{name} must be the URL of an HTTP proxy, http://[user:password@]host[:port], got "
            f"{shown:.80}"
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
