"""Credentials from the environment, where the official SDK looks for them."""

import logging
import os
from collections.abc import Generator, Mapping

import attrs

from ief_async._auth.keys import AccessKey, Secret
from ief_async._auth.kinds import CredentialKind
from ief_async._auth.sources import Credentials, EcsMetadata, Grant, Scope
from ief_async._errors import ConfigurationError, IefError
from ief_async._messages import Reply, Request
from ief_async._observer import write
from ief_async._regions import PREFIX, file_of
from ief_async._values import Value

PROFILE = "basic"  # the section for services of a region


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Found(Value):
    """Credentials that were found, and what was set beside them."""

    credentials: Credentials
    project_id: str | None = None
    iam_endpoint: str | None = None


@attrs.frozen
class _LastResort(CredentialKind):
    """The keys of the server that this may run on: nothing else was found."""

    looked_at: tuple[str, ...]

    def obtain(self, scope: Scope) -> Generator[Request, Reply, Grant]:
        """Ask the metadata service; if it gives no keys, say where else they were looked for."""
        metadata = EcsMetadata()
        try:
            return (yield from metadata.obtain(scope))
        except IefError as error:
            problem = str(error).rstrip(".")
        places = "; ".join((*self.looked_at, f"{metadata.endpoint}: {problem}"))
        message = f"No credentials found. Looked at {places}. Set {PREFIX}AK and {PREFIX}SK."
        raise ConfigurationError(message)

    def scrub(self, text: str) -> str:
        """Return `text`: nothing was found."""
        return text

    def advice(self, *, skew: float = 0.0, renewed: bool = False) -> str:
        """Say what to do when the metadata service gives no keys."""
        return EcsMetadata().advice(skew=skew, renewed=renewed)


def find_credentials(profile: str | None) -> Found:
    """Look for credentials in the environment, in the profile file, and at last on the server.

    Raises:
        ConfigurationError: there is no such `profile`, though one is named, or the file can't be
            read.
    """
    looked_at = []
    for look in (_in_environment, _in_file) if profile is None else (_in_file,):
        where, found = look(profile or PROFILE)
        if isinstance(found, Found):
            write(logging.INFO, "credentials found in %s", where)
            return found
        looked_at.append(f"{where}: {found}")
    if profile is not None:
        message = f"No credentials found in {looked_at[0]}"
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
    path = file_of("CREDENTIALS_FILE", "credentials")
    where = f"{path} (section [{profile}])"
    import configparser  # a session with credentials of its own reads no file

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
        message = f"{path} can't be read as a profile file ({problem}): fix or remove it"
        raise ConfigurationError(message)
    if not parser.has_section(profile):
        return where, f"no such section (it has: {', '.join(parser.sections()) or 'none'})"
    return where, _found({name: Secret(value) for name, value in parser.items(profile)})


def _found(said: Mapping[str, Secret]) -> Found | str:
    """Return the credentials that a place holds, or say what is missing."""
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
