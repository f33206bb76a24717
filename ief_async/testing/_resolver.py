"""A resolver of host names that fails on demand."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult


class FakeResolver(AbstractResolver):
    """Resolves every name to loopback, after it has raised the failures that it was given.

    Example:
        import socket

        import aiohttp
        from ief_async.testing import FakeResolver

        resolver = FakeResolver(socket.gaierror(socket.EAI_AGAIN, "try again"))
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
        async with aiohttp.ClientSession(connector=connector) as http:
            ...  # the first lookup fails, the others lead to 127.0.0.1

    Args:
        failures: The exceptions that the first lookups raise, one each.

    Attributes:
        asked: The port of each lookup so far.
    """

    def __init__(self, *failures: OSError) -> None:
        self._failures: dict[int | None, list[OSError]] = {None: list(failures)}
        self.asked: list[int] = []

    def fail(self, *failures: OSError, port: int | None = None) -> None:
        """Let more lookups raise.

        Args:
            failures: The exceptions, one for each lookup, after those that were given before.
            port: Only lookups for this port raise them; by default any lookup does.
        """
        self._failures.setdefault(port, []).extend(failures)

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002  as the base class has it
    ) -> list[ResolveResult]:
        """Return the address of loopback, or raise the next failure."""
        self.asked.append(port)
        for failures in (self._failures.get(port), self._failures[None]):
            if failures:
                raise failures.pop(0)
        found: ResolveResult = {
            "hostname": host,
            "host": "127.0.0.1",
            "port": port,
            "family": socket.AF_INET,
            "proto": 0,
            "flags": socket.AI_NUMERICHOST,
        }
        return [found]

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""
