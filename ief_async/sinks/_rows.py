"""The pages of a stream as lines of JSON."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import attrs
import msgspec

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import ConfigurationError
from ief_async._scan import Stream, engine_of
from ief_async._structure import LineReader

TARGET = "target"  # the first column of a fleet's scan
Keep = Callable[[Any], bool]


@attrs.frozen
class LinePage:
    """One page of a stream.

    Attributes:
        rows: its rows as lines of JSON, without those that ``keep`` left out.
        checkpoint: the stream's, once these rows are written.
    """

    rows: Sequence[bytes]
    checkpoint: ScanCheckpoint


class LinePages:
    """Iterates the pages of a stream as `LinePage`. When it is dropped, the scan ends."""

    def __init__(self, stream: Stream[Any], *, for_arrow: bool, keep: Keep | None = None) -> None:
        engine = engine_of_stream(stream)
        self._pages = stream.pages()
        self._of_targets = engine.of_targets
        engine.reader = LineReader(engine.reader, for_arrow=for_arrow, keep=keep)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LinePage:
        page = await anext(self._pages)
        items: Sequence[Any] = page.items
        begin = b""
        if self._of_targets and items:
            begin = b'{"target":%b,' % msgspec.json.encode(items[0][0].name)
            items = [item for _, item in items]
        lines = [line for line in items if line is not None]  # those that are kept
        if begin:  # in front of each line's own fields
            lines = [begin + line[1:] for line in lines]
        assert page.checkpoint is not None  # noqa: S101  every page of a scan has one
        return LinePage(lines, page.checkpoint)


def engine_of_stream(stream: object) -> Any:
    """Return what runs behind a stream.

    Raises:
        ConfigurationError: it is not a stream.
    """
    if not isinstance(stream, Stream):
        message = (
            f"stream must be a Stream, such as iter_pods() returns, got {type(stream).__name__}"
        )
        raise ConfigurationError(message)
    return engine_of(stream)
