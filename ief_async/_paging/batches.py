"""From ids to batches: one query each, cut the same way whenever the ids are the same. Pure."""

import re
from collections import deque
from collections.abc import Iterator
from typing import Literal

import attrs

from ief_async._checkpoint import Entry, Mark, Part, Run, ScanCheckpoint, fingerprint
from ief_async._errors import CheckpointError, ConfigurationError
from ief_async._values import Value

URL_BYTES = 4_000  # proxies and stock servers refuse lines of 8 KB: half of that is safe
OFFSET_DIGITS = 10
is_id = re.compile(r"[0-9A-Za-z_-]{1,64}").fullmatch

# "filter" stands for a list without ids: its one "id" is the filters, as they stand in the URL
Selector = Literal["deployment_ids", "deployment_id", "node_id", "group_id", "filter"]
# models are told by their names: most scans import none of them but `Pod`
MODELS = "ief_async._models."
SELECTORS = {"Deployment": "deployment_id", "Node": "node_id", "Group": "group_id"}
# what to pass instead of a model that selects no pods; the others are refused in general words
INSTEAD = {
    "Pod": "a Pod: pass its deployment_id or node_id",
    "Instance": "an Instance: pass its id as instance_id= to IefSession or with_options",
}


@attrs.frozen  # its own methods: it is compared for each answer
class Query:
    """What one batch asks for: a selector of the API and its ids."""

    selector: Selector
    ids: tuple[str, ...]

    @property
    def text(self) -> str:
        """The query as it stands in the URL; ids are of characters that need no quoting."""
        if self.selector == "filter":
            return self.ids[0]
        return f"{self.selector}={'%2C'.join(self.ids)}"


@attrs.frozen(eq=False, repr=False)
class Batch(Value):
    """A query, and where it goes on if a checkpoint has begun it."""

    query: Query
    mark: Mark | None = None


@attrs.define(eq=False, kw_only=True, repr=False)
class Batcher:
    """Collects ids into batches: each id once, `size` of them at most, the URL under its limit.

    With a checkpoint to resume from, the batches are cut as they were for the scan before. Ids that
    it has finished come as a `Run` instead of a batch, and ids that it does not know make batches
    of their own.

    Attributes:
        selector: how the ids select rows.
        size: ids in a batch, at most.
        fixed_bytes: how long the URL is without the ids.
        skip_empty_nodes: whether nodes are left out that say they run nothing.
        resume: the checkpoint to resume from, or None.
        first: the hash of the first id, once it came.
    """

    selector: Selector
    size: int
    fixed_bytes: int
    skip_empty_nodes: bool = False
    resume: ScanCheckpoint | None = None
    first: int | None = None
    _ids: list[str] = attrs.field(factory=list)
    _bytes: int = 0
    _seen: set[str] = attrs.field(factory=set)
    _parts: dict[int, Part] = attrs.field(factory=dict)  # not begun, by the hash of the first id
    _entries: deque[Entry] = attrs.field(factory=deque)  # of the part that was begun
    _run: Run = attrs.field(factory=Run)  # the ids of the first of these entries that came

    def __attrs_post_init__(self) -> None:
        self._parts = {part.first: part for part in self.resume.parts} if self.resume else {}

    @property
    def pending_entries(self) -> tuple[Entry, ...]:
        """The entries of the checkpoint's present part whose ids have not come yet."""
        return tuple(self._entries)

    @property
    def pending_parts(self) -> tuple[Part, ...]:
        """The parts of the checkpoint of which no id has come yet."""
        return tuple(self._parts.values())

    def add(self, identity: object) -> list[Batch | Run]:
        """Add an id; return the batches and runs that it completes.

        Raises:
            CheckpointError: the ids are not those of the checkpoint.
            ConfigurationError: it is not an id, or one of another kind.
        """
        checked = check_id(identity, self.selector)
        empty = self.skip_empty_nodes and getattr(identity, "deployment_num", None) == 0
        if checked in self._seen or empty:
            return []
        self._seen.add(checked)
        self.first = fingerprint(checked) if self.first is None else self.first
        return list(self._add(checked))

    def _add(self, checked: str) -> Iterator[Batch | Run]:
        if not self._entries and self._parts:
            yield from self._begin_part(checked)
        if self._entries:
            yield from self._follow(checked)
            return
        cost = len(checked) + len("%2C")
        if len(self._ids) >= self.size or self.fixed_bytes + self._bytes + cost > URL_BYTES:
            yield from self._cut()
        self._ids.append(checked)
        self._bytes += cost

    def flush(self) -> list[Batch]:
        """Return the batch that is not full yet, as there are no more ids.

        Raises:
            CheckpointError: the checkpoint holds more ids than have come.
        """
        if self._entries or self._parts:
            message = "there are fewer ids than the checkpoint holds"
            raise _another_scan(message)
        return list(self._cut())

    def _cut(self) -> Iterator[Batch]:
        if self._ids:
            yield Batch(Query(self.selector, tuple(self._ids)))
            self._ids.clear()
            self._bytes = 0

    def _begin_part(self, identity: str) -> Iterator[Batch]:
        """Begin the part of the checkpoint whose first id this is, if there is one."""
        part = self._parts.pop(fingerprint(identity), None)
        if part is not None:
            yield from self._cut()
            self._entries.extend(part.entries)
        elif self.resume is not None and len(self.resume.parts) == 1:
            message = f"its first id is another than {identity}"
            raise _another_scan(message)

    def _follow(self, identity: str) -> Iterator[Batch | Run]:
        """Add an id to the batch or run that comes next in the checkpoint."""
        entry = self._entries[0]
        if entry.mark is not None:
            self._ids.append(identity)
        self._run += Run.of([identity])
        if self._run.ids < entry.run.ids:
            return
        if self._run != entry.run:
            message = f"it holds other ids than the {self._run.ids} up to {identity}"
            raise _another_scan(message)
        self._entries.popleft()
        self._run = Run()
        if entry.mark is None:
            yield entry.run
        else:
            for batch in self._cut():
                yield attrs.evolve(batch, mark=entry.mark)


def _another_scan(problem: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is of another scan: {problem}; resume with the same ids in the same order"
    )


def _refuse_other_models(identity: object, selector: str) -> None:
    """Refuse the models of the API but the selector's own: their ids would select no pods."""
    for model in type(identity).__mro__:
        if not model.__module__.startswith(MODELS):
            continue
        name = model.__name__
        prefix = SELECTORS.get(name)
        if prefix is None:
            general = f"the model {name}: pass ids of deployments, nodes or groups"
            message = f"{selector} must be other ids, got {INSTEAD.get(name, general)}"
            raise ConfigurationError(message)
        if selector.startswith(prefix):
            return
        message = f"{selector} must be other ids, got a {name}: pass it as {prefix}s="
        raise ConfigurationError(message)


def check_id(identity: object, selector: str) -> str:
    """Return an id, or the id of a model.

    Raises:
        ConfigurationError: it would not be one id in the URL, or is of another kind.
    """
    if selector == "filter":
        return str(identity)
    if type(identity) is not str:  # of a hundred thousand ids, which are checked one after another
        _refuse_other_models(identity, selector)
        identity = getattr(identity, "id", identity)
    if isinstance(identity, str) and is_id(identity):
        return identity
    message = f"{selector} must be ids of 1 to 64 letters, digits, - and _, got {identity!r:.80}"
    raise ConfigurationError(message)


def url_bytes(path: str, selector: str, limit: int) -> int:
    """Return how long the target of a request is without its ids, at its largest offset."""
    return len(f"{path}?{selector}=&limit={limit}&offset=") + OFFSET_DIGITS
