"""What is measured of a fleet, driven by hand: a history, a status, and a meter that keeps everything."""

import re
from collections import Counter

import pytest

from sliceform.controller import Settings, SliceController, TpuSlice
from sliceform.controller.follow.follower import Batch
from sliceform.controller.follow.metrics import Measures, Seen
from sliceform.controller.follow.waits import Waits
from sliceform.controller.model.metrics import METRICS, Metered, MetricKind
from sliceform.controller.testing import FakeClock, SimBackend
from sliceform.states import AttemptRecord, History
from sliceform.states.hosts import HostState
from sliceform.states.slices import SliceState

SHAPE = TpuSlice("v4-16")


class Meter:
    """Adds up as Prometheus would."""

    def __init__(self):
        self.counters, self.gauges, self.observed, self.calls = Counter(), {}, {}, 0
        self.broken = False

    def record(self, metric, value, tags):
        self.calls += 1
        if self.broken:
            raise RuntimeError("no such tag")
        assert set(tags) == {"fleet", *metric.tags}
        assert tags["fleet"] == "train"
        key = (metric.name, *[tags[tag] for tag in metric.tags])
        if metric.kind is MetricKind.COUNTER:
            assert value > 0
            self.counters[key] += value
        elif metric.kind is MetricKind.GAUGE:
            self.gauges[key] = value
        else:
            self.observed.setdefault(metric.name, []).append(value)


class MeteredSim(SimBackend):
    """A simulated cluster that collects metrics."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.collected = Meter()

    def meter(self):
        return self.collected


class Measured:
    """A fleet driven by hand, that is measured when told to."""

    def __init__(self, sim_fleet, *args, **kwargs):
        self.world = sim_fleet(*args, **kwargs)
        self.meter = Meter()
        self.errors = 0
        loop = self.world.fleet._loop
        self.measures = Measures(self.meter, "train", lambda: Seen(loop.status, loop.take_ticks(), self.errors))
        self._seq = self._revision = 0

    def measure(self, missed=0):
        history = self.world.fleet.history
        changes = history.since(self._seq)
        self._seq = history.last_seq
        self._revision, attempts = history.attempts.since(self._revision)
        self.measures.consume(Batch(changes, attempts, missed))
        return self.meter


@pytest.fixture
def measured(sim_fleet):
    return lambda *args, **kwargs: Measured(sim_fleet, *args, **kwargs)


def test_gauges_show_the_fleet_state_by_state(measured):
    fleet = measured(2, 2, spares=1)
    fleet.world.ready(2)
    gauges = fleet.measure().gauges
    assert {state: gauges["sliceform_slices", state] for state in SliceState} == {
        **dict.fromkeys(SliceState, 0), "ready": 2, "pending": 1
    }  # fmt: skip
    assert gauges["sliceform_hosts", HostState.READY] == 4
    assert set(HostState) == {key[1] for key in gauges if key[0] == "sliceform_hosts"}
    assert (gauges["sliceform_desired_slices",], gauges["sliceform_ready_slices",]) == (3, 2)
    assert gauges["sliceform_size",] == 2
    assert gauges["sliceform_effects_in_flight",] == len(fleet.world.fleet._ledger.outbox) == 1


def test_a_state_that_empties_goes_to_zero_and_so_does_a_closed_fleet(measured):
    fleet = measured(1)
    fleet.world.step()
    assert fleet.measure().gauges["sliceform_slices", "pending"] == 1
    fleet.world.ready()
    gauges = fleet.measure().gauges
    assert (gauges["sliceform_slices", "pending"], gauges["sliceform_slices", "ready"]) == (0, 1)
    fleet.measures.close()
    assert set(gauges.values()) == {0}
    fleet.measure()
    assert set(gauges.values()) == {0}, "measured after the end"


def test_a_gauge_that_did_not_move_is_not_recorded_again(measured):
    fleet = measured(1)
    fleet.world.ready()
    calls = fleet.measure().calls
    assert fleet.measure().calls == calls


def test_counters_agree_with_the_history(measured):
    fleet = measured(2, 3)
    fleet.world.ready()
    fleet.measure()
    run = fleet.world.fleet.submit(pow, 2, 5)
    fleet.world.until(lambda: len(fleet.world.rows("running")) == 2)
    fleet.measure()
    fleet.world.sim.kill_host(fleet.world.place("slice-1"), 0)
    fleet.world.over(run)
    counters = fleet.measure().counters
    history = [change for change in fleet.world.history if not change.is_note]
    expected = Counter(("sliceform_transitions_total", c.kind, c.trigger, c.reason) for c in history)
    expected += Counter(("sliceform_notes_total", c.kind, c.reason) for c in fleet.world.history if c.is_note)
    assert {
        key: n for key, n in counters.items() if key[0] in {"sliceform_transitions_total", "sliceform_notes_total"}
    } == expected
    assert counters["sliceform_runs_total", "succeeded"] == 1
    assert counters["sliceform_attempts_total", "preempted"] == 1
    assert counters["sliceform_attempts_total", "succeeded"] == 1


def test_times_are_those_of_the_history(measured):
    """To the placing and the readiness from the creation; to the replacement from the loss."""
    fleet = measured(1, 2, place_s=5.0, agent_s=2.0)
    fleet.world.ready()
    fleet.world.sim.kill_host(fleet.world.place("slice-1"), 0)
    fleet.world.until(lambda: fleet.world.changes("prepare", "slice-2"))
    observed = fleet.measure().observed
    at = {(c.key, c.trigger): c.at for c in fleet.world.history if c.kind == "slice"}
    assert observed["sliceform_time_to_place_seconds"] == pytest.approx(
        [at["slice-1", "place"] - at["slice-1", "create"], at["slice-2", "place"] - at["slice-2", "create"]]
    )
    assert observed["sliceform_time_to_ready_seconds"][0] == pytest.approx(
        at["slice-1", "prepare"] - at["slice-1", "create"]
    )
    assert observed["sliceform_time_to_replace_seconds"] == pytest.approx(
        [at["slice-2", "prepare"] - at["slice-1", "preempt"]]
    )


def test_ticks_are_measured_once_each_with_their_errors(measured):
    fleet = measured(1)
    fleet.world.go(5.0)
    fleet.errors = 3
    ticks = fleet.measure().observed["sliceform_tick_duration_seconds"]
    assert len(ticks) == fleet.world.fleet.status().tick
    assert all(0 < seconds < 5 for seconds in ticks)
    fleet.measure()
    assert len(ticks) == fleet.world.fleet.status().tick
    assert fleet.meter.counters["sliceform_tick_errors_total",] == 3


def test_what_the_history_forgot_is_counted(measured):
    fleet = measured(1)
    assert fleet.measure(missed=7).counters["sliceform_changes_missed_total",] == 7


def test_a_meter_that_fails_stops_nothing(measured):
    fleet = measured(1)
    fleet.meter.broken = True
    fleet.world.ready()
    fleet.measure()
    assert fleet.measures.errors == fleet.meter.calls > 10


# Waits, change by change.


def tell(durations, *told):
    history = History()
    took = []
    for at, key, trigger, source, dest, fields in told:
        change = history.append(
            tick=1,
            at=at,
            kind="slice",
            key=key,
            trigger=trigger,
            source=source,
            dest=dest,
            **{"reason": "desired", **fields},
        )
        took += durations.of(change)
    return took


def create(at, key, cause=None):
    return (at, key, "create", None, "pending", {"cause": cause})


def test_one_that_never_became_ready_does_not_end_the_wait_for_the_one_before_it():
    took = tell(
        Waits(),
        create(0.0, "a"),
        (1.0, "a", "place", "pending", "placed", {}),
        (2.0, "a", "prepare", "placed", "ready", {}),
        (10.0, "a", "preempt", "ready", "preempted", {}),
        create(10.0, "b", "a"),
        (12.0, "b", "expire", "pending", "draining", {}),
        create(20.0, "c", "b"),
        (21.0, "a", "drain", "preempted", "draining", {}),
        (22.0, "c", "place", "pending", "placed", {}),
        (30.0, "c", "prepare", "placed", "ready", {}),
    )
    assert took == [("place", 1.0), ("ready", 2.0), ("place", 2.0), ("ready", 10.0), ("replace", 20.0)]


@pytest.mark.parametrize(("reason", "replaced"), [("operator", [("replace", 3.0)]), ("scale_down", [])])
def test_only_what_a_person_drained_is_missing(reason, replaced):
    took = tell(
        Waits(),
        create(0.0, "a"),
        (5.0, "a", "drain", "pending", "draining", {"reason": reason}),
        create(6.0, "b", "a"),
        (8.0, "b", "prepare", "placed", "ready", {}),
    )
    assert took == [("ready", 2.0), *replaced]


def test_a_clock_that_is_set_back_makes_no_negative_time():
    assert tell(Waits(), create(9.0, "a"), (5.0, "a", "prepare", "placed", "ready", {})) == [("ready", 0.0)]


def test_losses_that_nobody_replaces_do_not_pile_up():
    durations = Waits()
    tell(durations, *[(1.0, f"s{n}", "preempt", "ready", "preempted", {}) for n in range(10_050)])
    assert len(durations._lost) == 10_000


# What there is.


def test_names_and_tags_are_those_of_prometheus():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"sliceform_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.name.endswith("_seconds") == (metric.kind is MetricKind.HISTOGRAM)
        assert bool(metric.buckets) == (metric.kind is MetricKind.HISTOGRAM)
        assert list(metric.buckets) == sorted(metric.buckets)
        assert set(metric.tags) <= {"state", "kind", "trigger", "reason", "outcome"}
        assert metric.doc.endswith(".")


@pytest.mark.parametrize("wanted", [True, False])
def test_a_fleet_is_measured_if_its_backend_collects_and_the_setting_says_so(wanted):
    sim = MeteredSim(SHAPE, 1, clock=FakeClock())
    assert isinstance(sim, Metered)
    fleet = SliceController(SHAPE, name="train", backend=sim, clock=sim.clock, settings=Settings(metrics=wanted))
    fleet.wait_ready(timeout_s=60)
    fleet.run(pow, 2, 5)
    fleet.close()
    assert sim.collected.counters["sliceform_runs_total", "succeeded"] == wanted
    assert set(sim.collected.gauges.values()) == ({0} if wanted else set())
    assert not isinstance(SimBackend(SHAPE), Metered)


def test_an_attempt_counts_when_it_is_over(measured):
    fleet = measured(1)
    attempt = AttemptRecord("run-1", 1, ("slice-1",), (), 1.0)
    fleet.measures.consume(Batch((), (attempt,), 0))
    assert not any(key[0] == "sliceform_attempts_total" for key in fleet.meter.counters)
    fleet.measures.consume(Batch((), (attempt._replace(ended_at=2.0, outcome="failed"),), 0))
    assert fleet.meter.counters["sliceform_attempts_total", "failed"] == 1


def test_an_attempt_that_is_charged_anew_is_counted_once(measured):
    fleet = measured(1)
    attempt = AttemptRecord("run-1", 1, ("slice-1",), (), 1.0, 2.0, "failed", "its process vanished")
    for outcome in ("failed", "preempted"):
        fleet.measures.consume(Batch((), (attempt._replace(outcome=outcome),), 0))
    counted = {key: count for key, count in fleet.meter.counters.items() if key[0] == "sliceform_attempts_total"}
    assert counted == {("sliceform_attempts_total", "failed"): 1}
