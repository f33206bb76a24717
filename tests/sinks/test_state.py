"""The state of an export, and checkpoints in files."""

import pytest
from conftest import session_with
from exports import export, interrupted

from ief_async import (
    CheckpointError,
)
from ief_async.sinks import (
    load_checkpoint,
    save_checkpoint,
)
from ief_async.testing import FakeIef

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")


async def test_the_state_of_another_export_is_refused(tmp_path):
    """A state is of one file and one format; parts that are gone are missed at once."""
    path, state = tmp_path / "a.parquet", tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        for other in ("a.arrow", "a.ndjson"):
            with pytest.raises(
                CheckpointError, match=r"to another export, to a\.parquet as parquet"
            ):
                await export(fake, tmp_path / other, state)
        for part in tmp_path.glob("*.part"):
            part.unlink()
        with pytest.raises(CheckpointError, match="which is gone: delete it"):
            await export(fake, path, state)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"ief_async_export": 1}', "\x00"])
async def test_a_damaged_state_is_refused(text, tmp_path):
    """A file that does not hold a valid state is a CheckpointError, not a new beginning."""
    state = tmp_path / "state"
    state.write_text(text)
    async with FakeIef(6) as fake:
        with pytest.raises(CheckpointError, match="damaged"):
            await export(fake, tmp_path / "a.ndjson", state)
        with pytest.raises(CheckpointError, match="is not the state of an export"):
            await export(fake, tmp_path / "a.ndjson", state, resume=False)


def test_a_state_of_a_newer_release_is_refused(tmp_path):
    """The error of a newer state names both versions."""
    (tmp_path / "state").write_text('{"ief_async_export": 3}')

    with pytest.raises(CheckpointError, match=r"version 3.* reads 2"):
        load_checkpoint(tmp_path / "state")


async def test_checkpoints_are_kept_in_files(tmp_path):
    """What is saved is loaded; a file that is not there is no checkpoint."""
    state = tmp_path / "state"
    async with FakeIef(300) as fake, session_with(fake) as ief:
        async with ief.iter_pods(fake.deployment_ids) as stream:
            async for _ in stream.pages():
                break
        assert load_checkpoint(state) is None
        save_checkpoint(stream.checkpoint(), state)

    assert stream.checkpoint() == load_checkpoint(state)
    assert [state] == list(tmp_path.iterdir())


async def test_a_state_holds_no_secret(tmp_path):
    """The state of an export names files and columns, and neither token nor pods nor ids."""
    path, state = tmp_path / "a.ndjson", tmp_path / "state"
    async with FakeIef(600) as fake:
        await interrupted(fake, path, state)
        text = state.read_text()
        assert fake.token not in text
        assert fake.project_id not in text
        assert not any(identity in text for identity in fake.deployment_ids)
