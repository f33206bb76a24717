"""What a session reports about its work: to the logger ``ief_async``, and to ``on_event``."""

import inspect
import logging
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from ief_async._errors import ConfigurationError

if TYPE_CHECKING:  # events are imported where they are made: most sessions make none
    from ief_async._events import Event

OnEvent = Callable[["Event"], None]

log = logging.getLogger("ief_async")
log.addHandler(logging.NullHandler())  # the application decides where log lines go


def write(
    level: int,
    line: str,
    *args: object,
    extra: Mapping[str, object] | None = None,
    stacklevel: int = 1,
) -> None:
    """Write a line to the log; exceptions of the application's logging are not raised.

    `logging` does not catch exceptions of filters, nor those that handlers re-raise. Here they are
    printed on stderr, as `logging` prints other errors, unless its ``raiseExceptions`` is off.
    """
    try:
        log.log(level, line, *args, extra=extra, stacklevel=stacklevel + 1)
    except Exception:  # noqa: BLE001  the application's code may raise anything
        if logging.raiseExceptions:
            with suppress(Exception):  # there may be no stderr
                sys.stderr.write(traceback.format_exc())


class Observer:
    """Passes events to the ``on_event`` hook of a session, and log lines to the logger.

    Callers call `wants` before they create an event, so that an unused event costs nothing.
    """

    def __init__(self, hook: OnEvent | None = None) -> None:
        if hook is not None and (not callable(hook) or inspect.iscoroutinefunction(hook)):
            kind = type(hook).__name__ if not callable(hook) else "an async function"
            message = f"on_event must be a plain function with one argument, got {kind}"
            raise ConfigurationError(message)
        self._hook = hook

    def wants(self, level: int | None = None) -> bool:
        """Return whether there is a hook, or the logger is enabled for this level."""
        return self._hook is not None or (level is not None and log.isEnabledFor(level))

    def tell(
        self, event: "Event", level: int = logging.NOTSET, line: str = "", *args: object
    ) -> None:
        """Write a log line, if given, and call the hook; exceptions of either are not raised.

        The log record also has the event's fields, each with the prefix ``ief_``.
        """
        if line and log.isEnabledFor(level):
            # with a prefix, as the application's own records may have a request_id
            fields = {f"ief_{name}": value for name, value in attrs.asdict(event).items()}
            fields["ief_event"] = type(event).__name__
            write(level, line, *args, extra=fields, stacklevel=2)
        if self._hook is None:
            return
        try:
            self._hook(event)
        except Exception:  # noqa: BLE001  the hook may raise anything
            self._hook = None
            # as a text: a traceback that a handler keeps would keep the frames of the callers, and
            # with them the iterator of a stream that was left
            write(
                logging.WARNING,
                "on_event raised an exception and is not called again\n%s",
                traceback.format_exc().rstrip(),
            )
