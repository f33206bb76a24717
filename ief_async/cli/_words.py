"""The library's messages in the words of the command: ``page_size`` is ``--page-size`` here."""

import re

from ief_async._errors import ApiError
from ief_async.cli._arguments import option

# How the command spells an argument whose name is not its option's.
OPTIONS = {
    "deployment_ids": "--deployment-id",
    "node_ids": "--node-id",
    "group_ids": "--group-id",
    "resume_from": "--checkpoint",
    "requests_per_second": "--rate",
}
# Names that no service or sentence uses for anything else.
NAMES = (
    *OPTIONS,
    *("page_size", "batch_size", "max_items", "on_error", "on_drift", "on_bad_item"),
    *("deployment_id", "node_id", "group_id", "project_id", "instance_id", "iam_endpoint"),
    *("device_id", "device_name", "app_name"),
)
# Words that are arguments only where a message begins with one, or an equals sign follows.
WORDS = (
    "region",
    "endpoint",
    "profile",
    "concurrency",
    "deadline",
    "name",
    "state",
    "tags",
    "sort",
)
# What a user of the command can do about it is something else, or nothing.
PHRASES = {
    "Check project_id, region and endpoint.": ("Check --project-id, and --region or --endpoint."),
    "check region, endpoint and iam_endpoint": ("check --region, or --endpoint and --iam-endpoint"),
    "; resume from .checkpoint to read them again": (
        "; with --checkpoint the same command reads them again"
    ),
    ": see report.batches": "",
    "Page.raw and list_pods show the body as it came; report it with the request id": (
        "Report it with the request id"
    ),
    ": iter_pods reads it without one": ": ief-async pods reads it without one",
    ", or raise Limits(max_body_bytes=)": "",
    "for a private CA give http=": "for a private CA set SSL_CERT_FILE",
    "than RetryPolicy.retry_after_cap": "than the command waits",
    "than RetryPolicy.window_cap": "than the command waits",
    "Wait retry_after seconds if it is given; lower Limits.requests_per_second.": (
        "Wait before you try again; lower --rate."
    ),
}
_PHRASE = re.compile("|".join(map(re.escape, PHRASES)))
_NAME = re.compile(
    rf"""(?<![\w-])(?:Limits[.(])?(?P<name>{"|".join(NAMES)})\b(?:=\)|="(?P<value>\w+)"|=)?"""
    rf"""|(?:^|(?<![\w-])Limits\()(?P<first>{"|".join(WORDS)})(?:=\))?(?=\ must\ be\ )"""
    rf"""|(?<![\w-])(?P<given>{"|".join(WORDS)})=(?:(?P<quote>['"])(?P<of>[^'"]*)(?P=quote))?"""
)


def in_options(text: str) -> str:
    """Return a message of the library with the options of the command in it."""
    text = _PHRASE.sub(lambda found: PHRASES[found[0]], text)
    return _NAME.sub(_spelt, text)


def _spelt(found: re.Match[str]) -> str:
    name = found["name"] or found["first"] or found["given"]
    value = found["value"] or found["of"]
    spelt = OPTIONS.get(name) or option(name)
    return f"{spelt} {value}" if value else spelt


def message_of(error: Exception) -> str:
    """Return the message of an error in the words of the command, the server's as it said them."""
    said = error.error_msg if isinstance(error, ApiError) else ""
    parts = str(error).split(said) if said else [str(error)]
    return said.join(map(in_options, parts))
