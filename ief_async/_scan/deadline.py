"""When a scan has to be over."""

import asyncio
import math
from collections.abc import Callable

from ief_async._errors import TransportError
from ief_async._policies import Clock


class Deadline:
    """The deadline of a scan: one place that says whether it has passed.

    A request may end a little before or after it by a timer of its own, so what a request failed
    with says nothing about it.

    Attributes:
        at: a moment of the clock, once it was started; no request is to wait until then.
    """

    def __init__(self, seconds: float | None, clock: Clock) -> None:
        self.at = math.inf
        self._seconds = seconds
        self._clock = clock
        self._over = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def passed(self) -> bool:
        """Whether it has passed."""
        return self._over or self._clock.now() >= self.at

    def start(self, on_pass: Callable[[], None]) -> None:
        """Begin to count, unless that was done before; call `on_pass` when it has passed."""
        if self._seconds is None or self._timer is not None:
            return
        self.at = self._clock.now() + self._seconds

        def pass_by() -> None:
            self._over = True
            on_pass()

        # not `asyncio.timeout`: before Python 3.11.3 it raises CancelledError in a task that was
        # cancelled before and went on
        self._timer = asyncio.get_running_loop().call_later(self._seconds, pass_by)

    def cancel(self) -> None:
        """Wait for it no longer."""
        if self._timer is not None:
            self._timer.cancel()

    def error(self) -> TransportError:
        """Return what a scan fails with that it has ended."""
        return TransportError(
            f"the scan's deadline of {self._seconds} s passed; give it more time, or less to read"
        )
