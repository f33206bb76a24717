"""Exports of a fake fleet, and what their files have to hold."""

import asyncio
import gzip
import json
import threading
from pathlib import Path

import attrs
import pytest
from conftest import session_with

from ief_async import RetryPolicy, ServerError, sinks
from ief_async._file_formats import FILE_FORMATS, format_of, suffixes_of
from ief_async._models import parse_timestamp
from ief_async.sinks import load_checkpoint
from ief_async.testing import Fault

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
from pyarrow import parquet  # noqa: E402  after the line that says whether it is there

ONCE = RetryPolicy(attempts=1)


def said(value):
    """Return what an object says, in the types of Arrow's rows."""
    if attrs.has(type(value)):
        return {field.name: said(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, tuple):
        return [said(item) for item in value]
    if isinstance(value, dict):
        return [{"key": key, "value": item} for key, item in value.items()]
    return whole(value) if isinstance(value, str) else value


def whole(text):
    """Return a text with U+FFFD for what UTF-8 has no bytes for."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_row(item):
    """Return the row of a table that an object makes."""
    row = said(item)
    for name in ("created_at", "updated_at"):
        if name in row:
            text = row[name]
            row[name] = moment = parse_timestamp(text)
            row[f"{name}_text"] = text if moment is None else None
    return row


def as_line(item):
    """Return the document of a line that an object makes."""
    return json.loads(json.dumps(attrs.asdict(item)))


async def pods_of(fake):
    """Return the pods of a fleet as objects."""
    async with session_with(fake) as ief:
        return await ief.iter_pods(fake.deployment_ids).collect()


WRITE = {  # what writes a file, by its name: one for each suffix
    f"a{suffix}": getattr(sinks, f"write_{form.name}", None)  # test_formats.py tells of None
    for form in FILE_FORMATS.values()
    for one in form.suffixes
    for suffix in suffixes_of(form, one)
}


def rows_in(path):
    """Return the rows of a file, whatever its format, as a list of dicts."""
    name = path.name
    if name.endswith(".parquet"):
        return parquet.read_table(path).to_pylist()
    if name.endswith((".arrow", ".feather")):
        return pa.ipc.open_file(path).read_all().to_pylist()
    if name.endswith(".arrows"):
        return pa.ipc.open_stream(path).read_all().to_pylist()
    if _is_ndjson(path):
        text = path.read_bytes()
        if name.endswith(".gz"):
            text = gzip.decompress(text)
        if name.endswith(".zst"):
            text = pa.input_stream(path, compression="zstd").read()
        return [json.loads(line) for line in text.splitlines()]
    message = f"no reader for {path.suffix} in tests/exports.py"
    raise LookupError(message)


def _is_ndjson(path):
    form = format_of(path)
    return form is not None and form.name == "ndjson"


def expected_in(path, pods):
    """Return the rows that a file has to have."""
    return [(as_line if _is_ndjson(path) else as_row)(pod) for pod in pods]


async def export(fake, path, state, *, resume=True, pages=2, **options):
    """Export a fleet, or go on with it."""
    async with session_with(fake, retry=ONCE) as ief:
        checkpoint = load_checkpoint(state) if resume else None
        stream = ief.iter_pods(fake.deployment_ids, page_size=50, resume_from=checkpoint)
        write = WRITE[path.name]
        await write(stream, path, checkpoint=state, checkpoint_pages=pages, **options)


async def interrupted(fake, path, state, **options):
    """Leave an export unfinished."""
    fake.script(*[None] * 4, Fault.status(500))
    with pytest.raises(ServerError):
        await export(fake, path, state, **options)


def tasks_of_scans():
    """Return the tasks that run code of scans."""
    return [
        task
        for task in asyncio.all_tasks()
        if Path(task.get_coro().cr_code.co_filename).parent.name == "_scan"
    ]


class Slow:
    """Holds a method of a writer until it is let go, and counts who is in it at once."""

    def __init__(self, monkeypatch, of, name, *, skip=0):
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.inside = self.most = self.calls = 0
        self._lock = threading.Lock()
        real = getattr(of, name)

        def held(*given):
            with self._lock:
                self.calls += 1
                self.inside += 1
                self.most = max(self.most, self.inside)
            if self.calls > skip:
                self.entered.set()
                self.go_on.wait(30)
            try:
                return real(*given)
            finally:
                self.inside -= 1

        monkeypatch.setattr(of, name, held)

    async def is_entered(self):
        """Wait until a thread is in it."""
        await asyncio.to_thread(self.entered.wait, 30)
