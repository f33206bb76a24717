"""The gateway's quota: how many requests pass in a window of time."""

from collections import deque

import attrs

from ief_async.testing._validators import is_above, is_at_least

_UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}


@attrs.frozen(kw_only=True)
class Quota:
    """A throttling window of the gateway: it refuses requests for lists beyond a number.

    Example:
        from ief_async.testing import FakeIef, Quota

        async with FakeIef(quota=Quota(limit=60, seconds=60)) as fake:
            ...  # the 61st request within a minute is a 429
            assert fake.statistics().throttled == 0

    A refused request gets a 429 without ``Retry-After``; its text names the window, as in
    ``limit:60,time:1 minute``. It does not count towards the limit. Time is that of
    ``Service(clock=…)``.

    Attributes:
        limit: How many requests pass in a window.
        seconds: The length of the window.
        sliding: If true, the window is always the last ``seconds``. Otherwise one window follows
            another, and the first one begins with the first request.
        error_code: The error code of a refusal.
    """

    limit: int = attrs.field(validator=is_at_least(1))
    seconds: float = attrs.field(default=60.0, validator=is_above(0))
    sliding: bool = False
    error_code: str = "APIGW.0308"

    @property
    def text(self) -> str:
        """The error message of a refusal."""
        unit = next((name for name, size in _UNITS.items() if self.seconds % size == 0), "second")
        return (
            "The throttling threshold has been reached: policy user over ratelimit,"
            f"limit:{self.limit},time:{self.seconds / _UNITS[unit]:g} {unit}"
        )


class Meter:
    """Counts the requests that a quota lets pass."""

    def __init__(self) -> None:
        self._passed: deque[float] = deque()
        self._window_start: float | None = None

    def admit(self, quota: Quota, now: float) -> bool:
        """Return whether a request passes, and count it if so."""
        if quota.sliding:
            while self._passed and self._passed[0] <= now - quota.seconds:
                self._passed.popleft()
        elif self._window_start is None:
            self._window_start = now
        elif now - self._window_start >= quota.seconds:
            self._window_start += (now - self._window_start) // quota.seconds * quota.seconds
            self._passed.clear()
        if len(self._passed) >= quota.limit:
            return False
        self._passed.append(now)
        return True
