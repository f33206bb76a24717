"""What a session reports of its work: to the logger ``ief_async``, and to ``on_event``."""

import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress

import attrs

from ief_async._errors import ConfigurationError
from ief_async._events import Event

OnEvent = Callable[[Event], None]

log = logging.getLogger("ief_async")
log.addHandler(logging.NullHandler())  # where lines go is the application's business


def write(
    level: int,
    line: str,
    *args: object,
    extra: Mapping[str, object] | None = None,
    exc_info: bool = False,
    stacklevel: int = 1,
) -> None:
    """Write a line to the log, and never raise what an application's logging raises.

    `logging` lets through what filters raise, and what handlers re-raise. That is printed on
    stderr, as `logging` prints what handlers raise, unless its ``raiseExceptions`` is off.
    """
    try:
        log.log(level, line, *args, extra=extra, exc_info=exc_info, stacklevel=stacklevel + 1)
    except Exception:  # noqa: BLE001  whatever an application's own code raises
        if logging.raiseExceptions:
            with suppress(Exception):  # there may be no stderr
                sys.stderr.write(traceback.format_exc())


class Observer:
    """The ``on_event`` hook of a session, and the logger beside it.

    Callers ask `wants` before they make an event, so that an event that nobody wants costs nothing.
    """

    def __init__(self, hook: OnEvent | None = None) -> None:
        if hook is not None and (not callable(hook) or inspect.iscoroutinefunction(hook)):
            kind = type(hook).__name__ if not callable(hook) else "an async function"
            message = f"on_event must be a plain function of one event, got {kind}"
            raise ConfigurationError(message)
        self._hook = hook

    def wants(self, level: int | None = None) -> bool:
        """Tell whether there is a hook, or whether the logger writes lines of this level."""
        return self._hook is not None or (level is not None and log.isEnabledFor(level))

    def tell(
        self, event: Event, level: int = logging.NOTSET, line: str = "", *args: object
    ) -> None:
        """Write a line, if there is one, and call the hook; never raise what either raises.

        The line's record has the event's fields, too, each with the prefix ``ief_``.
        """
        if line and log.isEnabledFor(level):
            # a prefix, as an application's own records may have a request_id
            fields = {f"ief_{name}": value for name, value in attrs.asdict(event).items()}
            fields["ief_event"] = type(event).__name__
            write(level, line, *args, extra=fields, stacklevel=2)
        if self._hook is None:
            return
        try:
            self._hook(event)
        except Exception:  # noqa: BLE001  whatever the hook raises
            self._hook = None
            write(logging.WARNING, "on_event raised, and is not called again", exc_info=True)
