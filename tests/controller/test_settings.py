import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sliceform.controller.model.settings import Settings
from sliceform.controller.on_host.environment import set_environment


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for field in Settings.model_fields:
        monkeypatch.delenv(f"SLICEFORM_{field.upper()}", raising=False)


def test_defaults():
    settings = Settings()
    assert settings.silence_s == settings.effective_silence_s == 10.0
    assert settings.resync_s == 1.0
    assert settings.loss_grace_s == 0.0
    assert settings.quarantine_after == 3


def test_every_field_is_described_and_names_its_unit():
    no_times = {"quarantine_after", "history_limit", "journal_limit", "io_queue_limit", "coordinator_ports"}
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert name.endswith("_s") or name in no_times or field.annotation is bool, name


def test_environment_goes_before_defaults_and_arguments_before_both(monkeypatch):
    monkeypatch.setenv("SLICEFORM_SILENCE_S", "30")
    assert Settings().silence_s == 30.0
    assert Settings(silence_s=20).silence_s == 20.0


def test_wrong_environment_is_refused(monkeypatch):
    monkeypatch.setenv("SLICEFORM_SILENCE_S", "soon")
    with pytest.raises(ValidationError, match="silence_s"):
        Settings()


@given(st.floats(2, 1000), st.floats(0.5, 1000))
def test_silence_is_never_less_than_three_beats(silence_s, beat_s):
    settings = Settings(silence_s=silence_s, beat_s=beat_s)
    assert settings.effective_silence_s == max(silence_s, 3 * beat_s)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"silence": 3}, "silence"),
        ({"silence_s": 0}, "greater than 0"),
        ({"beat_s": -1}, "greater than 0"),
        ({"drain_grace_s": -0.1}, "greater than or equal to 0"),
        ({"pending_s": float("inf")}, "finite"),
        ({"quarantine_after": 0}, "greater than or equal to 1"),
        ({"history_limit": 1.5}, "integer"),
        ({"backoff_initial_s": 9, "backoff_max_s": 3}, "must not be less than"),
        ({"resync_s": 10, "silence_s": 5, "beat_s": 1}, "must be less than the effective silence"),
        ({"coordinator_ports": "8471"}, "coordinator_ports"),
        ({"coordinator_ports": "8480-8471"}, "two numbers from 1 to 65535, the lower first"),
        ({"coordinator_ports": "60000-70000"}, "two numbers from 1 to 65535, the lower first"),
    ],
)
def test_wrong_settings_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        Settings(**fields)


def test_both_ends_of_a_range_of_ports_belong_to_it():
    assert Settings(coordinator_ports="8471-8472").port_range == range(8471, 8473)


def test_settings_cannot_be_changed():
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.silence_s = 1.0


def test_every_setting_has_an_effect() -> None:
    """A limit that nothing reads would promise what does not happen."""
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (Path(__file__).parents[2] / "controller").rglob("*.py")
        if path.name != "settings.py"
    )
    read_as = {"coordinator_ports": "port_range"}
    unread = {name for name in Settings.model_fields if not re.search(rf"\.{read_as.get(name, name)}\b", code)}
    assert unread == set()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SLICEFORM_SILENSE_S", "SLICEFORM_SILENCE_S"),
        ("SLICEFORM_SILENCE", "SLICEFORM_SILENCE_S"),
        ("sliceform_drain_grace", "SLICEFORM_DRAIN_GRACE_S"),
        ("SLICEFORM_QUARANTINE", "SLICEFORM_QUARANTINE_S"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_refused_by_name(monkeypatch, name, meant):
    monkeypatch.setenv(name, "60")
    with pytest.raises(ValidationError, match=f"no setting is read from {name.upper()}; did you mean {meant}"):
        Settings()


def test_other_variables_that_begin_so_are_left_alone(monkeypatch):
    """A fleet may be made in the process of a run, which has ours; tests and users have their own."""
    call = {
        "env": {},
        "number": 1,
        "run_id": "run-1",
        "slice_id": "slice-1",
        "place": "a",
        "devices": 4,
        "megascale_address": "10.0.0.1:80",
        "coordinator_address": "10.0.0.1:90",
        **dict.fromkeys(("rank", "world_size", "slice_rank", "host_rank", "hosts_per_slice"), 1),
        "num_slices": 2,
    }
    before = set(os.environ)
    monkeypatch.setattr(os, "environ", {})
    set_environment(call)
    ours = [name for name in os.environ if name.startswith("SLICEFORM_") and name not in before]
    monkeypatch.undo()
    assert len(ours) > 10
    for name in (*ours, "SLICEFORM_REQUIRE_BROWSER", "SLICEFORM_VIRTUAL_HOST", "SLICEFORM_HOME"):
        monkeypatch.setenv(name, "1")
    assert Settings().silence_s == 10.0
