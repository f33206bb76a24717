"""What an answer says about when to ask again."""

import re
from typing import TypeVar

from ief_async._auth import http_date

T = TypeVar("T")
# "limit:60,time:1 minute": what the gateway says of a full window, in place of a Retry-After
WINDOW = re.compile(
    r"\btime\s{0,9}[:=]\s{0,9}([0-9]{1,9})\s{0,9}([a-z]{1,9})\b", re.IGNORECASE | re.ASCII
)
WINDOW_UNITS = {
    **dict.fromkeys(["s", "sec", "secs", "second", "seconds"], 1.0),
    **dict.fromkeys(["m", "min", "mins", "minute", "minutes"], 60.0),
    **dict.fromkeys(["h", "hr", "hrs", "hour", "hours"], 3_600.0),
    **dict.fromkeys(["d", "day", "days"], 86_400.0),
}


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Read a ``Retry-After`` header: seconds or an HTTP date; None if it is neither.

    `now` is the wall clock in epoch seconds. A date that has passed is 0 seconds.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:18])
    moment = http_date(text)
    return None if moment is None else max(0.0, moment.timestamp() - now)


def window_seconds(text: str) -> float | None:
    """Read the throttling window in the text of a 429; the longest of several, None without one."""
    windows = [
        float(number) * WINDOW_UNITS[unit.lower()]
        for number, unit in WINDOW.findall(text)
        if unit.lower() in WINDOW_UNITS
    ]
    return max(windows, default=0.0) or None
