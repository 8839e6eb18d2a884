"""Couplings: what each of them says, and every fault that makes them unusable."""

import re

import pytest

from sliceform.states import (
    ATTEMPT_TABLE,
    COUPLINGS,
    HOST_TABLE,
    RUN_TABLE,
    SLICE_TABLE,
    AttemptTrigger,
    Coupling,
    Couplings,
    HostTrigger,
    RunTrigger,
    SliceTrigger,
    TableError,
    Whose,
)

LOST = Coupling(SLICE_TABLE, SliceTrigger.PREEMPT, Whose.HOSTS, HOST_TABLE, HostTrigger.PREEMPT, "It is so.")


def test_what_takes_what_along_is_as_published():
    """The contract, written out once more by hand."""
    assert {str(row) for row in COUPLINGS.rows} == {
        "slice create -> its hosts: host create",
        "slice preempt -> its hosts: host preempt",
        "slice expire -> its hosts: host drain",
        "slice drain -> its hosts: host drain",
        "slice release -> its hosts: host release",
        "run start -> its attempt: attempt create",
        "attempt create -> its slices: slice start",
        "slice preempt -> its attempt: attempt stop",
        "slice drain -> its attempt: attempt stop",
        "attempt succeeded -> its run: run succeeded",
        "attempt cancelled -> its run: run cancelled",
    }


@pytest.mark.parametrize("row", COUPLINGS.rows, ids=str)
def test_a_coupling_is_found_by_what_it_follows(row):
    """And says why in a sentence."""
    assert row in COUPLINGS.of(row.table.name, row.trigger.value)
    assert re.fullmatch(r"[A-Z].*\.", row.doc)


def test_most_transitions_take_nothing_along():
    """Whatever is asked about them."""
    assert COUPLINGS.of("host", "preempt") == ()
    assert COUPLINGS.of("run", "retry") == ()


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        pytest.param((LOST._replace(trigger=HostTrigger.PREEMPT),), "is no trigger of a slice", id="foreign trigger"),
        pytest.param((LOST._replace(then=SliceTrigger.PREEMPT),), "is no trigger of a host", id="foreign consequence"),
        pytest.param((LOST._replace(whose=Whose.RUN),), "a slice has no host as its run", id="no such relation"),
        pytest.param((LOST._replace(doc=" "),), "it does not say why", id="no doc"),
        pytest.param((LOST, LOST), "2 rows from slice preempt to a host", id="twice"),
        pytest.param(
            (
                Coupling(RUN_TABLE, RunTrigger.START, Whose.ATTEMPT, ATTEMPT_TABLE, AttemptTrigger.CREATE, "One."),
                Coupling(ATTEMPT_TABLE, AttemptTrigger.CREATE, Whose.RUN, RUN_TABLE, RunTrigger.START, "Two."),
            ),
            "run start leads back to itself",
            id="no end",
        ),
    ],
)
def test_a_fault_is_refused(rows, fault):
    """Each is named, so that a fixed point is always reached."""
    with pytest.raises(TableError, match=fault):
        Couplings(rows)
