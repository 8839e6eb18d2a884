"""The real core in every state that small fleets reach; `make prove` searches larger ones."""

import dataclasses
import subprocess
import sys

import pytest

from .explorer import fields, snapshot
from .explorer.configurations import QUICK
from .explorer.model import Configuration, State
from .explorer.search import FoundError, explore


@pytest.mark.no_cover  # counting lines would double its time
@pytest.mark.timeout(900)
@pytest.mark.parametrize("configuration", QUICK, ids=lambda configuration: configuration.name)
def test_every_state_is_sound_and_converges(configuration: Configuration) -> None:
    result = explore(configuration, within_s=860.0)
    sys.stdout.write(f"{result}\n")
    assert result.states > 1_000


def test_a_search_that_is_cut_off_fails() -> None:
    with pytest.raises(TimeoutError, match="cut off after"):
        explore(QUICK[0], within_s=0.0)


def test_what_is_wrong_is_told_with_the_way_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that never takes an agent's answer cannot converge."""
    monkeypatch.setattr("sliceform.controller.reconcile.observe.fold", lambda life, event, now: False)
    with pytest.raises(FoundError, match=r"does not converge .*(?s:.)*\('time',\),"):
        explore(Configuration("deaf", faults=0, late=0), within_s=60.0)


def test_states_that_differ_in_names_and_time_alone_are_one() -> None:
    early = State.begin(Configuration("early", faults=0, late=0))
    late = early.twin()
    late.clock.s += 1_000.0
    late.world.epoch += 1_000.0
    for state in (early, late):
        for _ in range(12):
            state.do(state.free()[0])
    replaced = early.twin()
    replaced.do(("die", 0, 0), pay=False)
    for _ in range(20):
        replaced.do(replaced.free()[0])
    assert list(replaced.core.ledger.fleet.lives) != list(early.core.ledger.fleet.lives)
    assert early.key() == late.key() == replaced.key()


def test_a_twin_goes_its_own_way() -> None:
    state = State.begin(Configuration("one", faults=0, late=0))
    key = state.key()
    twin = state.twin()
    assert twin.key() == key
    for _ in range(5):
        twin.do(twin.free()[0])
    assert twin.key() != key
    assert state.key() == key


@dataclasses.dataclass
class Fresh:
    """A record that has a field which nobody has said how to read."""

    since: float = 1.0


def test_a_field_that_nobody_has_read_fails() -> None:
    with pytest.raises(snapshot.UnknownToTheExplorerError, match=r"in Fresh \(since\)"):
        snapshot.Key(0.0, 0.0, 1.0).of(Fresh())
    with pytest.raises(snapshot.UnknownToTheExplorerError, match="Popen"):
        snapshot.copy(subprocess.Popen)


def test_no_field_is_named_that_is_not_there() -> None:
    explore(Configuration("all", orders=("submit",), late=0), within_s=60.0)
    named = {*fields.READ, *fields.LEFT_OUT, *fields.REMADE, *fields.UNORDERED}
    assert named - snapshot.met == set()
