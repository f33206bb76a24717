"""The files that the command writes: every format that the library has, by its suffix."""

import pytest
from exports import WRITE, rows_in
from test_cli_output import fake, run  # noqa: F401  fixtures

from ief_async._file_formats import COMPRESSIONS, FILE_FORMATS
from ief_async.cli._arguments import FORMATS, parser_of


@pytest.mark.parametrize("name", WRITE)
def test_a_file_of_each_suffix_holds_every_pod(run, fake, tmp_path, name):  # noqa: F811  fixtures
    """--file writes the format that the suffix names, compressed if it says so."""
    path = tmp_path / name

    assert (0, b"", "") == run("pods", "--file", str(path))
    assert {pod["id"] for pod in fake.pods} == {row["id"] for row in rows_in(path)}


@pytest.mark.parametrize("form", FILE_FORMATS)
def test_each_format_of_a_file_can_be_piped(run, fake, form):  # noqa: F811  fixtures
    """-o has every format that the library writes, for a pipe as well."""
    code, out, err = run("pods", "-o", form)

    assert (0, "") == (code, err)
    assert fake.pods[0]["id"].encode() in out or not FILE_FORMATS[form].for_terminal


def test_the_help_names_each_format(capsys):
    """The help lists all formats, and the usual suffix of each kind of file."""
    with pytest.raises(SystemExit):
        parser_of().parse_args(["pods", "--help"])

    text = " ".join(capsys.readouterr().out.split())
    assert ", ".join(FORMATS) in text
    assert ".ndjson .ndjson.gz .ndjson.zst" in text
    assert {form.suffixes[0] for form in FILE_FORMATS.values()} <= set(text.split())


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("pods.parquet", ()),
        ("pods.arrows", ()),
        ("pods", ("-o", "parquet")),
        ("pods.ndjson", ("-o", "arrow")),
    ],
)
def test_only_ndjson_is_compressed(run, fake, tmp_path, name, option, compression):  # noqa: F811, PLR0917  fixtures
    """A file that would be called compressed and is not is wrong usage, and nothing is sent."""
    path = tmp_path / f"{name}{compression}"

    code, out, err = run("pods", "--file", str(path), *option)

    assert (2, b"", 0, []) == (code, out, len(fake.requests), list(tmp_path.iterdir()))
    said = f"as {compression} compresses ndjson only, got {path.name}\n"
    assert f"error: --file must be a path without {compression}, {said}" in err
