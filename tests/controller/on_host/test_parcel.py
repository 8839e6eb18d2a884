"""How values travel with the references in them; needs no cluster."""

import pickle
from typing import Any

import pytest
import ray

from sliceform.controller.on_host import parcel
from sliceform.controller.on_host.parcel import unwrap, with_values, wrap


@pytest.fixture
def ref() -> ray.ObjectRef:
    return ray.ObjectRef.from_random()


def test_references_go_beside_the_bytes_and_come_back_to_their_places(ref: ray.ObjectRef) -> None:
    other = ray.ObjectRef.from_random()

    def closure() -> Any:
        return other

    data, held = wrap({"ref": ref, "again": [ref], "closure": closure})
    assert held == (ref, other)
    assert ref.binary() not in data
    found = unwrap(data, held)
    assert found["ref"] is found["again"][0] is ref
    assert found["closure"]() is other


def test_what_has_no_references_is_only_bytes() -> None:
    data, held = wrap([1, "a", len])
    assert held == ()
    assert unwrap(data) == pickle.loads(data) == [1, "a", len]


def test_a_parcel_in_a_parcel_keeps_its_own_count(ref: ray.ObjectRef) -> None:
    other = ray.ObjectRef.from_random()
    outer = wrap([other, wrap([ref])])
    assert outer.held == (other, ref)
    first, inner = unwrap(*outer)
    assert (first, unwrap(*inner)) == (other, [ref])


def test_only_arguments_themselves_become_values(ref: ray.ObjectRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel.ray, "get", lambda refs: [{ref: 7}[one] for one in refs])
    args, named = with_values(lambda *args, **named: (args, named), 1, ref, [ref], a=ref, b={"b": ref}, function=2)
    assert args == (1, 7, [ref])
    assert named == {"a": 7, "b": {"b": ref}, "function": 2}
