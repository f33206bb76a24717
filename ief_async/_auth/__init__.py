"""Who asks: keys, where they come from, and when they are renewed.

A request for a key is sent by a function that is handed in; nothing here opens a connection. A kind
of credentials is one class that answers for itself (`CredentialKind`); nothing else tells kinds
apart.
"""

from ief_async._auth.environment import find_credentials
from ief_async._auth.keys import AccessKey, Key, Secret, Token, clock_skew, http_date
from ief_async._auth.projects import Project
from ief_async._auth.provider import CredentialProvider
from ief_async._auth.sources import (
    Credentials,
    EcsMetadata,
    PasswordCredentials,
    Scope,
    Source,
    kind_of,
)

__all__ = [
    "AccessKey",
    "CredentialProvider",
    "Credentials",
    "EcsMetadata",
    "Key",
    "PasswordCredentials",
    "Project",
    "Scope",
    "Secret",
    "Source",
    "Token",
    "clock_skew",
    "find_credentials",
    "http_date",
    "kind_of",
]
