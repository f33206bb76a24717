"""What a command starts from: the ids that it is given, and the session that it uses."""

import argparse
import sys
from typing import Any

import msgspec

from ief_async._policies import Limits
from ief_async._regions import known_region
from ief_async._session import IefSession
from ief_async.cli._outcome import Outcome, Usage


class _Identified(msgspec.Struct):
    id: str


def session_of_arguments(arguments: argparse.Namespace) -> IefSession:
    names = ("region", "project_id", "instance_id", "endpoint", "iam_endpoint")
    given: dict[str, Any] = {
        name: value for name in names if (value := getattr(arguments, name)) is not None
    }
    if not {"region", "endpoint"} & given.keys() and known_region() is None:
        message = "--region or --endpoint is needed, or HUAWEICLOUD_SDK_REGION_IEF_… to be set"
        raise Usage(message)
    limits = Limits(concurrency=arguments.concurrency, requests_per_second=arguments.rate)
    return IefSession.from_env(arguments.profile, limits=limits, **given)


def read_ids(arguments: argparse.Namespace, outcome: Outcome) -> None:
    """Set `ids`: the one kind that is given, and the ids; None for the whole project."""
    arguments.ids = None
    if arguments.command not in {"pods", "count"}:
        return
    given = {
        f"{kind}_ids": ids
        for kind in ("deployment", "node", "group")
        if (ids := getattr(arguments, f"{kind}_id"))
    }
    if len(given) > 1:
        message = "give --deployment-id, --node-id or --group-id, not several of them"
        raise Usage(message)
    if not given:
        return
    ((name, texts),) = given.items()
    found: list[str] = []
    for text in texts:
        if text == "-":
            outcome.to_go_on.append("with the same ids on standard input")
            found += _lines_of_ids()
        else:
            found.append(text)
    arguments.ids = name, found


def _lines_of_ids() -> list[str]:
    """Read ids from standard input: one on each line, or a JSON document with an ``id``."""
    ids = []
    for line in sys.stdin.buffer:
        text = line.decode(errors="replace").strip()
        if text.startswith("{"):
            try:
                text = msgspec.json.decode(text, type=_Identified).id
            except msgspec.MsgspecError:
                message = f"standard input has a line without an id: {text[:60]}"
                raise Usage(message) from None
        if text and not text.startswith("#"):
            ids.append(text)
    return ids
