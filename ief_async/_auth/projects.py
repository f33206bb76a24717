"""The project of a session: given, told by the key's source, or looked up once by its name."""

import logging
from collections.abc import Callable

import attrs

from ief_async._auth.flight import Flight, Send
from ief_async._auth.keys import percent_encoded
from ief_async._auth.provider import Keyring
from ief_async._auth.sources import Scope, document_of, is_id, mapping_of
from ief_async._errors import ConfigurationError, PayloadError
from ief_async._messages import Reply, Request
from ief_async._observer import write


def project_request(iam_endpoint: str, name: str) -> Request:
    """Return the request that looks a project up by its name; it is to be signed."""
    return Request(url=f"{iam_endpoint}/v3/projects?name={percent_encoded(name)}")


def project_of(reply: Reply, name: str, scrub: Callable[[str], str] = str) -> str:
    """Return the id of the one project in an answer, which `scrub` takes secrets out of.

    Raises:
        ConfigurationError: there is none, or there are several, which it lists.
        PayloadError: it is no list of projects.
    """
    projects = mapping_of(document_of(reply.body)).get("projects")
    if not isinstance(projects, list):
        message = "IAM's answer to the project lookup is no list of projects"
        raise PayloadError(message, path="projects")
    found = [mapping_of(project) for project in projects]
    known = [str(project["id"]) for project in found if project.get("id")]
    if len(known) == 1 and is_id(known[0]):
        return known[0]
    if len(known) == 1:
        message = "IAM's answer to the project lookup has an invalid project id"
        raise PayloadError(message, path="projects[0].id")
    listed = ", ".join(f"{project.get('id')} ({project.get('name')})" for project in found)
    listed = scrub(listed)
    message = (
        f"IAM knows no project named {name!r:.80}"
        if not known
        else (f"IAM knows {len(known)} projects named {name!r:.80}: {listed:.600}")
    )
    message = f"{message}; give project_id="
    raise ConfigurationError(message)


@attrs.define(eq=False)
class Project:
    """The project of a session: given, told by the key's source, or looked up once by its name."""

    id: str | None
    name: str | None
    given: str = ""  # what it was asked for by, which a lookup does not change
    _flight: Flight = attrs.field(factory=Flight)

    def __attrs_post_init__(self) -> None:
        self.given = self.id or self.name or ""

    async def find(self, keyring: Keyring, send: Send, ask: Send, scope: Scope) -> str:
        """Return its id; whoever is first looks it up for all. What it asks is signed, by `ask`."""
        if self.id is None:
            keyring.refuse_circle()
            async with self._flight.turn():
                if self.id is None:
                    self.id = await self._look_up(keyring, send, ask, scope)
                    write(logging.INFO, "the project is %s", self.id)
        return self.id

    async def _look_up(self, keyring: Keyring, send: Send, ask: Send, scope: Scope) -> str:
        async with keyring.turn(send, scope):
            pass  # a token tells whose it is
        if keyring.project_id is not None:
            return keyring.project_id
        if self.name is None:
            message = "the project is not known: give project_id=, or region= to look it up"
            raise ConfigurationError(message)
        reply = await ask(project_request(scope.iam_endpoint, self.name))
        return project_of(reply, self.name, keyring.scrub)
