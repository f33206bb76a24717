"""The project of a session: given, named by the key's source, or looked up once by its name."""

import logging
from collections.abc import Callable

import attrs

from ief_async._auth.flight import Send, SingleFlight
from ief_async._auth.keys import percent_encoded
from ief_async._auth.provider import CredentialProvider
from ief_async._auth.sources import Scope, document_of, is_id, mapping_of
from ief_async._errors import ConfigurationError, PayloadError
from ief_async._messages import Reply, Request
from ief_async._observer import write


def project_request(iam_endpoint: str, name: str) -> Request:
    """Return the request that looks a project up by its name; it is to be signed."""
    return Request(url=f"{iam_endpoint}/v3/projects?name={percent_encoded(name)}")


def project_of(reply: Reply, name: str, scrub: Callable[[str], str] = str) -> str:
    """Return the id of the one project in an answer; `scrub` takes secrets out of its words.

    Raises:
        ConfigurationError: there is no project of this name, or there are several, which it lists.
        PayloadError: the answer is not a list of projects.
    """
    projects = mapping_of(document_of(reply.body)).get("projects")
    if not isinstance(projects, list):
        message = "IAM's answer to the project lookup is not a list of projects"
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


@attrs.define(eq=False, repr=False)
class Project:
    """The project of a session: given, named by the key's source, or looked up once by its name.

    Attributes:
        id: its id, or None until it is looked up.
        name: its name, or None.
        given: what it was asked for by, which a lookup does not change.
    """

    id: str | None
    name: str | None
    given: str = ""
    _flight: SingleFlight = attrs.field(factory=SingleFlight)

    def __attrs_post_init__(self) -> None:
        self.given = self.id or self.name or ""

    async def find(self, provider: CredentialProvider, send: Send, ask: Send, scope: Scope) -> str:
        """Return its id; the first request looks it up for all.

        Args:
            provider: what may know the project by its key.
            send: sends a request for a key.
            ask: sends the request for the project, which is authenticated.
            scope: what the key is needed for.
        """
        if self.id is None:
            provider.raise_if_reentrant()
            async with self._flight.exclusive():
                if self.id is None:
                    self.id = await self._look_up(provider, send, ask, scope)
                    write(logging.INFO, "the project is %s", self.id)
        return self.id

    async def _look_up(
        self, provider: CredentialProvider, send: Send, ask: Send, scope: Scope
    ) -> str:
        async with provider.permit(send, scope):
            pass  # a token tells its project
        if provider.project_id is not None:
            return provider.project_id
        if self.name is None:
            message = "The project is unknown: give project_id=, or region= to look it up"
            raise ConfigurationError(message)
        reply = await ask(project_request(scope.iam_endpoint, self.name))
        return project_of(reply, self.name, provider.scrub)
