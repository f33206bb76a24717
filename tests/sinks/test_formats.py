"""The formats: each has a class, a function and suffixes, and can or can't be compressed."""

import pytest
from conftest import session_with
from exports import WRITE, pods_of, rows_in

from ief_async import ConfigurationError, sinks
from ief_async._file_formats import COMPRESSIONS, FILE_FORMATS
from ief_async.sinks._formats import Format
from ief_async.testing import FakeIef

pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def test_every_format_has_a_line_a_class_and_a_function():
    """The table of formats, the classes and the public functions have the same names."""
    kinds = {kind.name for kind in _below(Format) if not kind.__name__.startswith("_")}
    written = {name.removeprefix("write_") for name in sinks.__all__ if name.startswith("write_")}

    assert set(FILE_FORMATS) == kinds, "a line in _file_formats.py for each class of sinks/_formats"
    assert set(FILE_FORMATS) == written, "write_… in sinks/_export.py and in sinks.__all__"


def _below(kind):
    """Yield all classes below one."""
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)


def test_no_suffix_has_two_formats():
    """A suffix names one format, and begins with a dot."""
    suffixes = [suffix for form in FILE_FORMATS.values() for suffix in form.suffixes]

    assert len(set(suffixes)) == len(suffixes)
    assert {"."} == {suffix[0] for suffix in suffixes}


@pytest.mark.parametrize("name", WRITE)
async def test_a_file_with_a_suffix_has_its_format(name, tmp_path):
    """A file that the function of its suffix writes is read by that format's own reader."""
    async with FakeIef(30, deployments=1) as fake, session_with(fake) as ief:
        await WRITE[name](ief.iter_pods(fake.deployment_ids), tmp_path / name)
        pods = await pods_of(fake)

    assert [pod.id for pod in pods] == [row["id"] for row in rows_in(tmp_path / name)]


def test_a_file_without_a_reader_says_where_it_belongs(tmp_path):
    """A suffix that the tests can't read is an error that names the place of its reader."""
    with pytest.raises(LookupError, match=r"no reader for \.csv in tests/exports\.py"):
        rows_in(tmp_path / "a.csv")


PLAIN = [
    f"a{suffix}{compression}"
    for form in FILE_FORMATS.values()
    if not form.compressible
    for suffix in form.suffixes
    for compression in COMPRESSIONS
]


@pytest.mark.parametrize("saved", [False, True], ids=["in one go", "in parts"])
@pytest.mark.parametrize("name", PLAIN)
async def test_a_compression_that_a_format_lacks_is_refused(name, saved, tmp_path):
    """No file is called compressed that is not: its path is refused before anything is sent."""
    suffix = name[name.index(".") : name.rindex(".")]
    (form,) = (form for form in FILE_FORMATS.values() if suffix in form.suffixes)
    write = getattr(sinks, f"write_{form.name}")
    said = f"to must be a path without .*, as .* compresses ndjson only, got {name}"
    async with FakeIef(30, deployments=1) as fake, session_with(fake) as ief:
        with pytest.raises(ConfigurationError, match=said):
            await write(
                ief.iter_pods(fake.deployment_ids),
                tmp_path / name,
                checkpoint=tmp_path / "state" if saved else None,
            )

    assert [] == list(tmp_path.iterdir())
    assert 0 == fake.statistics().requests
