"""Turns the arguments of a session into the `Transport` that sends its requests.

Parts that are not arguments of `IefSession`, such as a clock, are passed in here: by `scan_fleet`,
whose sessions share some of them, and by tests.
"""

from collections.abc import Awaitable
from typing import Any

import attrs

from ief_async._arguments import ID, check_kind, refuse
from ief_async._auth import CredentialProvider, Credentials, Key, Project, Source
from ief_async._errors import ConfigurationError
from ief_async._http import Connections, Counters, Endpoints, Pacer, RetryBudget, Transport
from ief_async._observer import Observer
from ief_async._policies import Clock, Limits, RetryPolicy, Timeouts
from ief_async._regions import check_endpoint, endpoints_of, iam_endpoint_of

ID_CHARACTERS = 64


def problem_of(credentials: object) -> str | None:
    """Return what is wrong with credentials, or None.

    It does not raise, because the wrong value may be the token itself: the caller deletes it before
    it raises, so that no traceback shows it.
    """
    known = isinstance(credentials, Key | Source)
    if (known or callable(credentials)) and not isinstance(credentials, type):
        return None
    got = type(credentials).__name__
    if isinstance(credentials, type):
        got = f"a class: write {credentials.__name__}(...)"
    elif isinstance(credentials, str | bytes):
        got += ": write Token(...)"
    elif isinstance(credentials, Awaitable):
        got += ": give the function, not what it returns"
    return (
        "credentials must be a Token, AccessKey, PasswordCredentials, EcsMetadata or an async "
        f"function, got {got}"
    )


def connect(
    project_id: str | None = None,
    *,
    credentials: Credentials,
    connections: Connections,
    observer: Observer,
    region: str | None = None,
    endpoint: str | None = None,
    iam_endpoint: str | None = None,
    instance_id: str | None = None,
    retry: RetryPolicy = RetryPolicy(),
    limits: Limits = Limits(),
    timeout: Timeouts = Timeouts(),
    clock: Clock = Clock(),
    provider: CredentialProvider | None = None,
) -> Transport:
    """Check the arguments of `IefSession`, and return what sends its requests.

    The credentials must have passed `problem_of`.
    """
    _check_policies(retry, limits, timeout)
    check_kind("region", region, str | None)
    if project_id is not None:
        _check_id("project_id", project_id)
    elif region is None and not getattr(credentials, "project", None):
        message = "project_id is missing: give it, or give region= to look it up"
        raise ConfigurationError(message)
    if instance_id is not None:
        _check_id("instance_id", instance_id)
    endpoints = (
        (check_endpoint("endpoint", endpoint),) if endpoint is not None else endpoints_of(region)
    )
    asked = iam_endpoint_of(region, iam_endpoint)
    checked_by = endpoints[0] if isinstance(credentials, Key) else asked
    return Transport(
        endpoints=Endpoints(*endpoints),
        iam_endpoint=asked,
        provider=provider or CredentialProvider(credentials, clock, observer, endpoint=checked_by),
        project=Project(project_id, region),
        instance_id=instance_id,
        connections=connections,
        pacer=Pacer(
            limits=_narrowed(limits, connections),
            budget=RetryBudget(retry.budget),
            clock=clock,
            counters=Counters(),
            observer=observer,
            shared=connections.shared,
        ),
        observer=observer,
        clock=clock,
        retry=retry,
        limits=limits,
        timeouts=timeout,
    )


def reconnect(old: Transport, overrides: dict[str, Any]) -> Transport:
    """Return a transport with other options that shares everything that is not overridden.

    Args:
        old: the transport that it is derived from.
        overrides: the arguments of `IefSession.with_options`.
    """
    retry = overrides.get("retry", old.retry)
    limits = overrides.get("limits", old.limits)
    timeout = overrides.get("timeout", old.timeouts)
    instance_id = overrides.get("instance_id", old.instance_id)
    _check_policies(retry, limits, timeout)
    if instance_id is not None:
        _check_id("instance_id", instance_id)
    project, provider, pacer = old.project, old.provider, old.pacer
    if "project_id" in overrides:
        _check_id("project_id", overrides["project_id"])
        project = Project(overrides["project_id"], project.name)
        provider = provider.for_another_project()
    if "limits" in overrides:
        pacer = Pacer(
            limits=_narrowed(limits, old.connections),
            budget=pacer.budget,
            clock=old.clock,
            counters=pacer.counters,
            observer=old.observer,
            shared=old.connections.shared,
        )
    return attrs.evolve(
        old,
        provider=provider,
        project=project,
        instance_id=instance_id,
        pacer=pacer,
        retry=retry,
        limits=limits,
        timeouts=timeout,
    )


def _check_policies(retry: object, limits: object, timeout: object) -> None:
    check_kind("retry", retry, RetryPolicy)
    check_kind("limits", limits, Limits)
    check_kind("timeout", timeout, Timeouts)


def _check_id(name: str, value: object) -> None:
    """Raise an error for an id that would change the path or the header that contains it."""
    if isinstance(value, str) and ID.fullmatch(value):
        return
    # a value longer than an id may be a token in the wrong place
    shown = repr(value) if len(str(value)) <= ID_CHARACTERS else f"{len(str(value))} characters"
    refuse(name, "1 to 64 letters, digits, - and _", shown)


def _narrowed(limits: Limits, connections: Connections) -> Limits:
    return attrs.evolve(limits, concurrency=connections.places(limits.concurrency))
