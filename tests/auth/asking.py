"""Sessions that sign in with a fake, and what came of their requests."""

import asyncio
import traceback
from collections import Counter

from conftest import session_with

from ief_async import (
    AccessKey,
    PasswordCredentials,
    RetryPolicy,
)

LOGIN = "/v3/auth/tokens"


def password(fake, **options):
    """Return the credentials of the fake's user."""
    given = {"domain": fake.domain, "user": fake.user, "password": fake.password}
    return PasswordCredentials(**{**given, **options})


def access_key(fake):
    """Return the fake's permanent key."""
    return AccessKey(fake.access_key, fake.secret_key)


def session(fake, credentials, **options):
    """Return a session with the fake that gets its keys there, too."""
    options = {"iam_endpoint": fake.endpoint, "retry": RetryPolicy(base=0), **options}
    return session_with(fake, credentials=credentials, **options)


def seen(fake, path):
    """Count the requests that went to a path, or to one that ends so."""
    return sum(request.path.endswith(path) for request in fake.requests)


async def ask(ief, fake, times=1):
    """Send so many requests at once; return what came of each."""
    calls = [ief.list_pods(deployment_id=fake.deployment_ids[0], limit=5) for _ in range(times)]
    return await asyncio.gather(*calls, return_exceptions=True)


def kinds(outcomes):
    """Count the kinds of what came."""
    return Counter(type(one).__name__ for one in outcomes)


def locals_of(error):
    """Return what the locals of all frames of an error print; a half-made object prints nothing."""
    shown = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name, value in frame.f_locals.items():
            try:
                shown.append(f"{frame.f_code.co_name}: {name} = {value!r}")
            except AttributeError:
                shown.append(f"{frame.f_code.co_name}: {name}")
    return shown
