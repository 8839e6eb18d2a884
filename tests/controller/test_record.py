"""The record of a fleet: what is in it, what is not, and that its replay decides the same or says where not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sliceform.controller.api.controller import SliceController
from sliceform.controller.cli import main
from sliceform.controller.errors import ConfigurationError
from sliceform.controller.model.shapes import TpuSlice
from sliceform.controller.report.replay import replay_record
from sliceform.controller.testing import FakeClock, SimBackend

SHAPE = TpuSlice("v4-16")


class Recorded:
    """A fleet that is recorded, driven step by step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.sim = SimBackend(SHAPE, 4, clock=self.clock, work_s=2.0)
        self.fleet = SliceController(SHAPE, 2, backend=self.sim, clock=self.clock, record=path)

    def go(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            self.fleet.step()

    def live(self) -> "Recorded":
        """Let something of everything happen, and close."""
        fleet = self.fleet
        fleet.wait_ready(2)
        run = fleet.options(env={"TOKEN": "s3cret"}).submit(pow, 271828, 2)
        self.go(1.0)
        self.sim.kill_host(fleet.status().slices[0].place, 1)
        assert run.result().values == [271828**2] * 4
        fleet.avoid("rack-z", 60.0, "odd")
        fleet.scale([1, 3], spares=1)
        fleet.drain(fleet.status().slices[0].id, 0.0)
        fleet.submit(pow, 1, 1).cancel(0.0)
        self.go(5.0)
        fleet.allow("rack-z")
        fleet.close()
        return self

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "fleet.record").live()


def test_every_tick_is_written_with_what_it_took_and_decided(recorded: Recorded) -> None:
    header, *ticks = recorded.rows()
    assert header["shape"] == {"TpuSlice": SHAPE.model_dump(mode="json")}
    assert (header["sizes"], header["spares"], header["next_slice"]) == ([2], 0, 1)
    assert [row["tick"] for row in ticks] == list(range(1, recorded.fleet._ledger.tick + 1))
    orders = [order for row in ticks for order in row.get("orders", ())]
    names = [next(iter(order)) for order in orders]
    assert names == ["Submit", "Avoid", "Scale", "Drain", "Submit", "Cancel", "Allow", "Close"]
    assert orders[2] == {"Scale": {"sizes": [1, 3], "spares": 1}}
    decided = [line for row in ticks for line in row.get("decided", ())]
    noted = [change for change in recorded.fleet.history if change.is_note or change.trigger]
    assert sum(not line.startswith("ask ") for line in decided) == len(noted)
    assert any(row.get("beats") for row in ticks)


def test_nothing_secret_is_written(recorded: Recorded) -> None:
    text = recorded.path.read_text()
    assert '"env":["TOKEN"]' in text
    assert "s3cret" not in text
    assert "271828" not in text
    assert str(271828**2) not in text
    assert recorded.path.stat().st_mode & 0o077 == 0


def test_the_replay_decides_the_same(recorded: Recorded) -> None:
    (replayed,) = replay_record(recorded.path)
    assert (replayed.ticks, replayed.difference) == (recorded.fleet._ledger.tick, None)


def test_it_does_so_in_another_process_without_ray(recorded: Recorded) -> None:
    code = "import sys; sys.modules['ray'] = None; from sliceform.controller.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "replay", recorded.path]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{recorded.fleet._ledger.tick} ticks agree with what was recorded (sliceform ")


def test_the_first_tick_that_decides_otherwise_is_told(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    """Take a beat of the world away: the answer of an agent never came."""
    rows = recorded.rows()
    row = next(row for row in rows if any("AgentUp" in event for event in row.get("events", ())))
    row["events"] = [event for event in row["events"] if "AgentUp" not in event]
    recorded.path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (replayed,) = replay_record(recorded.path)
    assert replayed.difference is not None
    assert (replayed.ticks, replayed.difference.tick) == (row["tick"] - 1, row["tick"])
    assert "  - slice-1 prepare: placed -> ready (agents_answered)" in str(replayed.difference).splitlines()
    assert main(["replay", str(recorded.path)]) == 1
    assert f"tick {row['tick']}, at 2023-11-14 " in capsys.readouterr().out
    assert main(["replay", str(recorded.path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["difference"]["tick"] == row["tick"]


def test_the_next_driver_goes_on_in_the_same_file_also_after_one_that_was_killed(recorded: Recorded) -> None:
    text = recorded.path.read_text()
    recorded.path.write_text(text[: text.rindex("epoch")])
    Recorded(recorded.path).live()
    first, second = replay_record(recorded.path)
    assert (first.difference, second.difference) == (None, None)
    assert second.ticks == first.ticks + 1


def test_a_tick_that_raises_is_recorded_with_what_it_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = Recorded(tmp_path / "fleet.record")
    world.fleet.wait_ready(2)
    with monkeypatch.context() as patch:
        patch.setattr(world.fleet._loop._reservations, "follow", lambda **_: 1 / 0)
        world.fleet.avoid("rack-z")
        with pytest.raises(ZeroDivisionError):
            world.fleet.step()
    world.go(2.0)
    world.fleet.close()
    (row,) = [row for row in world.rows() if "raised ZeroDivisionError" in row.get("decided", ())]
    assert row["orders"] == [{"Avoid": {"place": "rack-z", "for_s": None, "reason": ""}}]
    (replayed,) = replay_record(world.path)
    assert replayed.difference is not None
    assert replayed.difference.tick == row["tick"]


def test_without_a_record_no_tick_is_witnessed(tmp_path: Path) -> None:
    clock = FakeClock()
    fleet = SliceController(SHAPE, 1, backend=SimBackend(SHAPE, 1, clock=clock), clock=clock)
    fleet.wait_ready()
    assert fleet._loop._record is None
    fleet.close()
    assert list(tmp_path.iterdir()) == []


def test_a_record_ends_at_its_bound_and_the_fleet_goes_on(tmp_path: Path) -> None:
    world = Recorded(tmp_path / "fleet.record")
    recorder = world.fleet._recorder
    recorder._limit_bytes = 2_000
    world.fleet.wait_ready(2)
    recorder.write(())
    size = world.path.stat().st_size
    world.go(2.0)
    recorder.write(())
    assert world.path.stat().st_size == size > 2_000
    world.fleet.close()
    (replayed,) = replay_record(world.path)
    assert replayed.difference is None
    assert replayed.ticks < world.fleet._ledger.tick


def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"record .* cannot be written: Is a directory"):
        Recorded(tmp_path).fleet.start()
    first = Recorded(tmp_path / "fleet.record")
    first.fleet.step()
    with pytest.raises(ConfigurationError, match="is being written by another fleet"):
        Recorded(tmp_path / "fleet.record").fleet.step()
    first.fleet.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("hello\n", "line 1 is not JSON"),
        ("[]\n", "line 1 is not an object"),
        ('{"tick":1}\n', "does not begin with a header"),
        ('{"format":99}\n', "has form 99"),
        ('{"format":1}\n', "the header is not one"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "fleet.record"
    path.write_text(text)
    assert main(["replay", str(path)]) == 2
    assert said in capsys.readouterr().err
