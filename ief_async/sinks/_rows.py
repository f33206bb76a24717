"""The pages of a stream as rows of a sink."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs
import msgspec

from ief_async._checkpoint import ScanCheckpoint
from ief_async._errors import ConfigurationError
from ief_async._scan import Stream, engine_of
from ief_async._structure import Plain

if TYPE_CHECKING:
    pass
TARGET = "target"
Keep = Callable[[Any], bool]


@attrs.frozen
class Lines:
    """What a page became: its rows as lines of JSON, and what is done with it."""

    rows: Sequence[bytes]
    checkpoint: ScanCheckpoint


class Pages:
    """The pages of a stream as lines of JSON. When it dies, the scan ends."""

    def __init__(self, stream: Stream[Any], *, for_arrow: bool, keep: Keep | None = None) -> None:
        engine = engine_behind(stream)
        self._pages = stream.pages()
        self._of_targets = engine.of_targets
        engine.reader = Plain(engine.reader, for_arrow=for_arrow, keep=keep)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Lines:
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
        return Lines(lines, page.checkpoint)


def engine_behind(stream: object) -> Any:
    if not isinstance(stream, Stream):
        message = f"a sink takes a stream, as of iter_pods(), but was given {type(stream).__name__}"
        raise ConfigurationError(message)
    return engine_of(stream)
