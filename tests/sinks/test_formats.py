"""Each format is found by the suffix of a file, and the table names all of them."""

import pytest
from conftest import session_with
from exports import pods_of, rows_in

from ief_async import sinks
from ief_async.sinks import format_suffixes
from ief_async.sinks._formats import BY_SUFFIX, Format
from ief_async.testing import FakeIef


def test_every_format_has_a_suffix_and_a_function():
    """Each format is in the table of suffixes, and a public function writes it."""
    kinds = {kind for kind in _below(Format) if not kind.__name__.startswith("_")}

    assert kinds == set(BY_SUFFIX.values())
    for kind in kinds:
        assert f"write_{kind.name}" in sinks.__all__
    assert {suffix: kind.name for suffix, kind in BY_SUFFIX.items()} == format_suffixes()


def _below(kind):
    """Yield all classes below one."""
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


@pytest.mark.parametrize("suffix", BY_SUFFIX)
async def test_a_file_with_a_suffix_has_its_format(suffix, tmp_path):
    """A file that the function of its suffix writes is read by that format's own reader."""
    endings = {".feather": ".arrow", ".jsonl": ".ndjson"}
    path = tmp_path / f"a{suffix}"
    async with FakeIef(30, deployments=1) as fake, session_with(fake) as ief:
        write = getattr(sinks, f"write_{format_suffixes()[suffix]}")
        await write(ief.iter_pods(fake.deployment_ids), path)
        pods = await pods_of(fake)

    read_as = path.rename(tmp_path / f"b{endings.get(suffix, suffix)}")
    assert [pod.id for pod in pods] == [row["id"] for row in rows_in(read_as)]
