"""The gateway's quota: so many requests in a window of time, enforced."""

from collections import deque

import attrs

_UNITS = {"day": 86_400, "hour": 3_600, "minute": 60, "second": 1}


@attrs.frozen(kw_only=True)
class Quota:
    """How many requests for lists the gateway lets through in a window; it refuses any more.

    The refusal is a 429 without ``Retry-After``; its text names the window, as in
    ``limit:60,time:1 minute``. What is refused does not count.

    Attributes:
        limit: requests.
        seconds: the length of the window.
        sliding: the window is always the last so many seconds; else one window follows another,
            and the first one begins with the first request.
        error_code: the code of the refusal.
    """

    limit: int = attrs.field(validator=attrs.validators.ge(1))
    seconds: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    sliding: bool = False
    error_code: str = "APIGW.0308"

    @property
    def text(self) -> str:
        """What the gateway says when it refuses a request."""
        unit = next((name for name, size in _UNITS.items() if self.seconds % size == 0), "second")
        return (
            "The throttling threshold has been reached: policy user over ratelimit,"
            f"limit:{self.limit},time:{self.seconds / _UNITS[unit]:g} {unit}"
        )


class Meter:
    """Counts what a quota lets through."""

    def __init__(self) -> None:
        self._passed: deque[float] = deque()
        self._begin: float | None = None

    def admits(self, quota: Quota, now: float) -> bool:
        """Count a request, and tell whether there is room for it."""
        if quota.sliding:
            while self._passed and self._passed[0] <= now - quota.seconds:
                self._passed.popleft()
        elif self._begin is None:
            self._begin = now
        elif now - self._begin >= quota.seconds:
            self._begin += (now - self._begin) // quota.seconds * quota.seconds
            self._passed.clear()
        if len(self._passed) >= quota.limit:
            return False
        self._passed.append(now)
        return True
