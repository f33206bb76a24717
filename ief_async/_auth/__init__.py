"""Who asks: keys, where they come from, and when they are renewed.

A request for a key leaves by a function that is handed in; nothing here opens a connection.
"""

from ief_async._auth.environment import find_credentials
from ief_async._auth.keys import AccessKey, Key, Secret, Token, clock_skew, http_date
from ief_async._auth.projects import Project
from ief_async._auth.provider import Keyring
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
    "Credentials",
    "EcsMetadata",
    "Key",
    "Keyring",
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
