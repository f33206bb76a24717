"""The phases of a batch, and the table of what may follow."""

import pytest

from ief_async import IefError
from ief_async._paging.phases import TRANSITIONS, Phase, next_phase


@pytest.mark.parametrize("now", Phase)
@pytest.mark.parametrize("then", Phase)
def test_only_what_the_table_has_may_follow(now, then):
    """A phase follows itself and what the table has; anything else is refused as a bug."""
    if then is now or then in TRANSITIONS[now]:
        assert then is next_phase(now, then)
    else:
        with pytest.raises(IefError, match=f"from {now.name} to {then.name}: this is a bug"):
            next_phase(now, then)


def test_every_phase_may_fail_and_is_reached():
    """Each phase but the last may fail, and each but the first follows another one."""
    assert Phase.FAILED not in TRANSITIONS[Phase.FAILED]
    assert all(Phase.FAILED in TRANSITIONS[phase] for phase in Phase if phase is not Phase.FAILED)
    assert {*Phase} - {Phase.FIRST} == {then for all_of in TRANSITIONS.values() for then in all_of}
