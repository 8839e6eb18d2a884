"""`plan` decides, in commands, from the whole fleet alone."""

import copy
import random
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings

from sliceform.controller.model.effects import AttemptSpec
from sliceform.controller.model.settings import Settings
from sliceform.controller.model.sizes import Desired, parse_sizes
from sliceform.controller.reconcile.decide.fleet import Fleet
from sliceform.controller.reconcile.decide.life import Life, Notice
from sliceform.controller.reconcile.decide.plan import plan
from sliceform.controller.reconcile.decide.policy import Backoff, Pause, Places, Vacancy
from sliceform.controller.reconcile.decide.run import Attempt, Ended, RunOptions, RunRecord, Verdict
from sliceform.controller.reconcile.decide.schedule import free_slices
from sliceform.controller.reconcile.decide.step import Members, Step
from sliceform.states import ATTEMPT_TABLE, RUN_TABLE, SLICE_TABLE
from sliceform.states.attempts import AttemptState
from sliceform.states.hosts import HostState
from sliceform.states.reasons import Reason
from sliceform.states.runs import RunState, RunTrigger
from sliceform.states.slices import LIVE, SliceState, SliceTrigger
from sliceform.states.table import Kind

NOW = 1000.0
COMMANDS = {
    row.trigger for table in (SLICE_TABLE, RUN_TABLE, ATTEMPT_TABLE) for row in table.rows if row.kind is Kind.COMMAND
}
HOSTS = {
    SliceState.PENDING: HostState.PENDING,
    SliceState.PLACED: HostState.PLACED,
    SliceState.READY: HostState.READY,
    SliceState.RUNNING: HostState.RUNNING,
    SliceState.PREEMPTED: HostState.PREEMPTED,
    SliceState.DRAINING: HostState.DRAINING,
}


def fleet_of(states: str = "", sizes: Any = 1, *, spares: int = 0, runs: tuple[RunRecord, ...] = ()) -> Fleet:
    """Return a fleet whose slices are in the states that the words begin with, oldest first."""
    wish = Settings(settle_s=30.0, surplus_s=300.0)
    lives = {}
    for number, word in enumerate(states.split(), 1):
        life = Life.begin(f"slice-{number}", 2, generation=0, replaces=None)
        life.record.state = SliceState(word)
        for host in life.record.hosts:
            host.state = HOSTS[life.record.state]
        lives[life.record.id] = life
    for waiting in runs:
        waiting.sizes = waiting.options.sizes or parse_sizes(sizes)
    return Fleet(
        settings=wish,
        desired=Desired(parse_sizes(sizes), spares),
        lives=lives,
        runs=list(runs),
        places=Places(wish),
        backoff=Backoff(0.5, 60.0, random.Random(0)),
        hosts=2,
        next_number=len(lives) + 1,
        now=NOW,
        surveyed=True,
        epoch=NOW + 5000.0,
    )


def run(number: int = 1, sizes: tuple[int, ...] | None = None, *, previous: tuple[str, ...] = ()) -> RunRecord:
    made = RunRecord(f"run-{number}", None, RunOptions(sizes=sizes), 0.0, lambda _: None, RunState.WAITING)
    if previous:
        made.attempts = [
            Attempt(AttemptSpec("x/1", "x", 1, previous, 2, None), 0.0, verdict=Verdict(Ended.PREEMPTED, ""))
        ]
    return made


def of_slices(fleet: Fleet) -> list[Step]:
    return [step for step in plan(fleet).steps if isinstance(step, Step)]


def drained(fleet: Fleet) -> list[str]:
    return [step.slice_id for step in of_slices(fleet) if step.trigger is SliceTrigger.DRAIN]


def created(fleet: Fleet) -> list[Step]:
    return [step for step in of_slices(fleet) if step.trigger is SliceTrigger.CREATE]


def started(fleet: Fleet) -> list[tuple[str, tuple[str, ...]]]:
    """Return the runs that start, and the slices that each is given."""
    steps = [step for step in plan(fleet).steps if step.trigger is RunTrigger.START]
    return [(step.key, step.given.slices) for step in steps if isinstance(step.given, Members)]


class TestWhateverThePicture:
    @given(st.data())
    @settings(max_examples=60)
    def test_yields_only_commands_that_the_tables_allow(
        self, any_fleet: st.SearchStrategy[Fleet], data: st.DataObject
    ) -> None:
        fleet = data.draw(any_fleet)
        states: dict[str, Any] = {run.id: run.state for run in fleet.runs}
        states |= {attempt.id: attempt.state for run in fleet.runs for attempt in run.attempts}
        states |= {life.record.id: life.record.state for life in fleet.lives.values()}
        for step in plan(fleet).steps:
            assert step.trigger in COMMANDS
            work: Any = ATTEMPT_TABLE if "/" in step.key else RUN_TABLE
            table = SLICE_TABLE if isinstance(step, Step) else work
            row = table.row(states.get(step.key), step.trigger)
            assert row is not None, step
            states[step.key] = row.dest

    @given(st.data())
    @settings(max_examples=60)
    def test_changes_nothing_and_decides_the_same_again(
        self, any_fleet: st.SearchStrategy[Fleet], data: st.DataObject
    ) -> None:
        fleet = data.draw(any_fleet)
        before = copy.deepcopy([life.view for life in fleet.lives.values()]), fleet.next_number, list(fleet.vacancies)
        versions = [life.version for life in fleet.lives.values()]
        assert plan(fleet) == plan(fleet)
        after = [life.view for life in fleet.lives.values()], fleet.next_number, list(fleet.vacancies)
        assert after == before
        assert [life.version for life in fleet.lives.values()] == versions

    @given(st.data())
    @settings(max_examples=60)
    def test_running_slices_go_only_when_told_to(
        self, any_fleet: st.SearchStrategy[Fleet], data: st.DataObject
    ) -> None:
        fleet = data.draw(any_fleet)
        for step in of_slices(fleet):
            life = fleet.lives.get(step.slice_id)
            if step.trigger is SliceTrigger.DRAIN and life and life.record.state is SliceState.RUNNING:
                assert fleet.closing_by is not None or life.drain_by is not None

    @given(st.data())
    @settings(max_examples=60)
    def test_a_blind_controller_gives_nothing_back_of_its_own_accord(
        self, any_fleet: st.SearchStrategy[Fleet], data: st.DataObject
    ) -> None:
        fleet = data.draw(any_fleet)
        fleet.blind = "nobody answers"
        assert plan(fleet).pause.count <= fleet.pause.count
        for step in plan(fleet).steps:
            assert step.reason not in {Reason.SCALE_DOWN, Reason.SURPLUS}

    @given(st.data())
    @settings(max_examples=60)
    def test_no_slice_goes_to_two_runs(self, any_fleet: st.SearchStrategy[Fleet], data: st.DataObject) -> None:
        fleet = data.draw(any_fleet)
        given_away = [member for _, members in started(fleet) for member in members]
        assert len(given_away) == len(set(given_away))
        going = set(drained(fleet))
        assert not going & set(given_away)

    @given(st.data())
    @settings(max_examples=60)
    def test_never_more_slices_than_desired_come_of_it(
        self, any_fleet: st.SearchStrategy[Fleet], data: st.DataObject
    ) -> None:
        fleet = data.draw(any_fleet)
        live = sum(life.record.state in LIVE for life in fleet.lives.values())
        assert live + len({step.slice_id for step in created(fleet)}) <= max(live, fleet.desired.target) + len(
            set(drained(fleet))
        )


class TestCount:
    def test_a_converged_fleet_needs_nothing(self) -> None:
        for fleet in (
            fleet_of("ready ready", 2),
            fleet_of("running ready", [1, 2]),
            fleet_of("ready ready", 1, spares=1),
        ):
            assert not plan(fleet)
            assert plan(fleet).steps == ()

    def test_what_is_missing_is_created(self) -> None:
        steps = created(fleet_of("ready", 3))
        assert [step.slice_id for step in steps] == ["slice-2", "slice-3"]
        assert {step.reason for step in steps} == {Reason.DESIRED}

    def test_preempted_and_draining_slices_never_stand_in_the_way(self) -> None:
        fleet = fleet_of("preempted draining ready", 2)
        fleet.lives["slice-1"].record.since = NOW
        fleet.lives["slice-1"].record.attempt = "run-1/1"
        assert [step.slice_id for step in created(fleet)] == ["slice-4"]

    def test_a_replacement_says_whom_it_replaces(self) -> None:
        fleet = fleet_of("ready", 3)
        fleet.vacancies = [Vacancy("slice-7", lost=True)]
        first, second = created(fleet)
        assert (first.cause, first.reason, first.detail) == ("slice-7", Reason.REPLACEMENT, "replaces slice-7")
        assert (second.cause, second.reason) == (None, Reason.DESIRED)

    def test_creation_waits_for_the_backoff(self) -> None:
        fleet = fleet_of("", 1)
        fleet.vacancies = [Vacancy("slice-7", lost=False, failures=3, not_before=NOW + 5.0)]
        decision = plan(fleet)
        assert (decision.steps, decision.due) == ((), NOW + 5.0)
        assert decision.vacancies == tuple(fleet.vacancies)

    def test_a_backoff_holds_up_nothing_but_what_failed(self) -> None:
        fleet = fleet_of("ready", 3)
        failing = Vacancy("slice-7", lost=False, failures=3, not_before=NOW + 5.0)
        fleet.vacancies = [failing, Vacancy("slice-8", lost=True)]
        assert [step.cause for step in created(fleet)] == ["slice-8"]
        assert plan(fleet).vacancies == (failing,)

    def test_scale_down_takes_pending_then_placed_then_idle_newest_first_and_never_what_runs(self) -> None:
        states = "ready pending running placed ready pending placed running"
        order = ["slice-6", "slice-2", "slice-7", "slice-4", "slice-5", "slice-1"]
        for wanted in range(1, 8):
            assert drained(fleet_of(states, wanted)) == order[: 8 - wanted]


class TestSizes:
    def test_aims_for_the_largest(self) -> None:
        assert len(created(fleet_of("ready ready", [2, 4]))) == 2

    def test_surplus_goes_back_after_a_while_and_growth_pauses(self) -> None:
        fleet = fleet_of("ready ready ready pending", [2, 4])
        fleet.added_at = NOW - 299.0
        assert plan(fleet).steps == ()
        assert (plan(fleet).pause, plan(fleet).due) == (Pause(), NOW + 1.0)
        fleet.now = NOW + 1.0
        decision = plan(fleet)
        assert drained(fleet) == ["slice-4", "slice-3"]
        assert decision.steps[0].reason is Reason.SURPLUS
        assert (decision.pause, decision.due) == (Pause(fleet.now + 300.0, 1), fleet.now + 300.0)

    def test_a_slice_is_idle_since_its_own_last_use(self) -> None:
        fleet = fleet_of("ready ready ready", [2, 4])
        for name, since in (("slice-1", NOW - 1.0), ("slice-2", NOW - 100.0), ("slice-3", NOW - 200.0)):
            fleet.lives[name].record.since = since
        assert (drained(fleet), plan(fleet).due) == ([], NOW + 100.0)

    def test_a_run_that_waits_keeps_what_it_could_use_and_ends_the_pause(self) -> None:
        fleet = fleet_of("ready ready ready", [2, 4], runs=(run(1, (4,)),))
        fleet.pause = Pause(NOW + 100.0, 2)
        assert drained(fleet) == []
        assert (len(created(fleet)), plan(fleet).pause) == (1, Pause(0.0, 2))

    def test_the_largest_size_reached_forgets_the_pauses(self) -> None:
        fleet = fleet_of("ready ready", [1, 2])
        fleet.pause = Pause(NOW - 100.0, 5)
        assert plan(fleet).pause == Pause()

    def test_a_loss_is_replaced_though_growth_pauses(self) -> None:
        fleet = fleet_of("running running running", [2, 4, 8])
        fleet.pause = Pause(NOW + 100.0, 1)
        assert created(fleet) == []
        fleet.vacancies = [Vacancy("slice-9", lost=True)]
        assert [step.cause for step in created(fleet)] == ["slice-9"]
        fleet.vacancies = [Vacancy("slice-9", lost=False, failures=1)]
        assert created(fleet) == []

    def test_growth_resumes(self) -> None:
        fleet = fleet_of("ready ready", [2, 4])
        fleet.pause = Pause().begin(NOW, 300.0)
        assert plan(fleet).steps == ()
        fleet.now = fleet.pause.until
        assert len(created(fleet)) == 2

    def test_spares_are_no_surplus(self) -> None:
        fleet = fleet_of("ready ready ready pending pending", [2, 4], spares=1)
        assert (drained(fleet), plan(fleet).pause) == ([], Pause())

    def test_running_slices_are_no_surplus(self) -> None:
        assert drained(fleet_of("running running running pending", [2, 4])) == []


class TestPreempted:
    def test_goes_at_once_if_it_was_lost(self) -> None:
        fleet = fleet_of("preempted", 1)
        fleet.lives["slice-1"].record.lost = True
        assert plan(fleet).steps[0].reason is Reason.LOST

    def test_goes_when_its_work_is_gone(self) -> None:
        fleet = fleet_of("preempted", 1)
        life = fleet.lives["slice-1"]
        life.record.attempt, life.record.since = "run-1/1", NOW
        assert drained(fleet) == []
        for host in life.view.hosts:
            host.gone = "run-1/1"
        assert drained(fleet) == ["slice-1"]

    def test_goes_at_the_deadline_of_the_notice_else_after_the_usual_grace(self) -> None:
        fleet = fleet_of("preempted", 1)
        life = fleet.lives["slice-1"]
        life.record.attempt, life.record.since = "run-1/1", NOW
        assert plan(fleet).due == NOW + 30.0
        life.view.hosts[0].notices = {"gce": fleet.epoch + 7.0}
        assert plan(fleet).due == NOW + 7.0
        fleet.now, fleet.epoch = NOW + 7.0, fleet.epoch + 7.0
        assert drained(fleet) == ["slice-1"]
        assert plan(fleet).steps[0].reason is Reason.GRACE_OVER

    def test_closing_and_operators_take_what_runs(self) -> None:
        fleet = fleet_of("running pending preempted draining", 2)
        fleet.closing_by = 5.0
        assert drained(fleet) == ["slice-1", "slice-2", "slice-3"]
        assert created(fleet) == []
        fleet = fleet_of("running ready", 2)
        fleet.lives["slice-1"].drain_by = 5.0
        assert drained(fleet) == ["slice-1"]
        assert [step.cause for step in created(fleet)] == ["slice-1"]


class TestRuns:
    def test_what_may_have_no_spares_keeps_none_from_one_that_had_as_many(self) -> None:
        again = run(2, (2,), previous=("slice-8", "slice-9"))
        fleet = fleet_of("running running ready ready", 2, spares=2, runs=(run(1, (2,)), again))
        fleet.runs[0].since = NOW - 6000.0
        assert started(fleet) == [("run-2", ("slice-3", "slice-4"))]

    def test_start_at_once_on_the_largest_size(self) -> None:
        assert started(fleet_of("ready ready", [1, 2], runs=(run(),))) == [("run-1", ("slice-1", "slice-2"))]

    def test_start_smaller_once_nothing_was_added_for_a_while(self) -> None:
        fleet = fleet_of("ready ready pending pending", [2, 4], runs=(run(),))
        fleet.added_at = NOW - 29.0
        assert (started(fleet), plan(fleet).due) == ([], NOW + 1.0)
        fleet.now = NOW + 1.0
        assert started(fleet) == [("run-1", ("slice-1", "slice-2"))]

    def test_one_that_cannot_start_is_overtaken_until_it_has_waited_for_long(self) -> None:
        fleet = fleet_of("ready ready", 3, runs=(run(1, (3,)), run(2, (1,))))
        fleet.runs[0].since = NOW - 599.0
        assert [name for name, _ in started(fleet)] == ["run-2"]
        fleet.runs[0].since = NOW - 600.0
        assert started(fleet) == []

    def test_one_that_can_no_longer_start_holds_nobody_up(self) -> None:
        fleet = fleet_of("ready ready", 2, runs=(run(1, (3,)), run(2, (1,))))
        assert [name for name, _ in started(fleet)] == ["run-2"]

    def test_spares_are_for_losses_alone(self) -> None:
        fresh, lost = run(1), run(2, (3,), previous=("slice-1", "slice-2", "slice-9"))
        fleet = fleet_of("ready ready ready", [2, 3], spares=1, runs=(fresh,))
        assert [len(members) for _, members in started(fleet)] == [2]
        fleet = fleet_of("ready ready ready", [2, 3], spares=1, runs=(lost,))
        assert [len(members) for _, members in started(fleet)] == [3]

    def test_nobody_waits_for_spares_to_come(self) -> None:
        assert len(started(fleet_of("ready ready", 2, spares=2, runs=(run(),)))) == 1
        assert started(fleet_of("running running ready", 2, spares=2, runs=(run(1, (1,)),))) == []

    def test_what_a_run_was_stopped_to_grow_to_is_kept_for_it(self) -> None:
        growing, other = run(1, (2, 4), previous=("slice-1", "slice-2")), run(2, (2,))
        growing.state, growing.grown_to = RunState.RUNNING, 4
        growing.attempts[0].verdict, growing.attempts[0].state = None, AttemptState.STOPPING
        fleet = fleet_of("running running ready ready", [2, 4], runs=(growing, other))
        assert started(fleet) == []

    def test_first_come_first_served(self) -> None:
        fleet = fleet_of("ready ready ready", 3, runs=(run(1, (2,)), run(2, (1,)), run(3, (1,))))
        assert [(name, len(members)) for name, members in started(fleet)] == [("run-1", 2), ("run-2", 1)]

    def test_one_that_backs_off_holds_nobody_up(self) -> None:
        first, second = run(1, (1,)), run(2, (1,))
        first.not_before = NOW + 3.0
        fleet = fleet_of("ready", 1, runs=(first, second))
        assert [name for name, _ in started(fleet)] == ["run-2"]
        second.not_before, first.not_before = NOW + 3.0, 0.0
        second.attempts = run(2, previous=("slice-1",)).attempts
        assert plan(fleet).due == NOW + 3.0

    def test_one_that_is_being_cancelled_gets_nothing(self) -> None:
        waiting = run()
        waiting.cancel_by = 0.0
        assert started(fleet_of("ready", 1, runs=(waiting,))) == []

    def test_one_that_has_waited_too_long_gets_nothing_in_the_tick_in_which_that_is_seen(self) -> None:
        late, other = run(1, (1,)), run(2, (1,))
        late.options, late.since = RunOptions(sizes=(1,), max_wait_s=5.0), NOW - 5.0
        fleet = fleet_of("ready", 1, runs=(late, other))
        (step,) = plan(fleet).steps
        assert (step.key, step.trigger, step.reason) == ("run-1", None, Reason.LIMIT_REACHED)
        late.cancel_by = NOW
        assert started(fleet) == []
        assert [step.key for step in plan(fleet).steps] == ["run-1"]
        fleet.runs.remove(late)
        assert started(fleet) == [("run-2", ("slice-1",))]

    def test_survivors_keep_their_rank(self) -> None:
        again = run(1, previous=("slice-9", "slice-2"))
        assert started(fleet_of("ready ready", 2, runs=(again,))) == [("run-1", ("slice-1", "slice-2"))]

    def test_slices_under_notice_or_to_be_drained_are_not_free(self) -> None:
        fleet = fleet_of("ready ready ready running", 4)
        fleet.lives["slice-1"].view.hosts[0].notices = {"gce": None}
        fleet.lives["slice-2"].drain_by = 0.0
        assert fleet.lives["slice-1"].view.hosts[0].notice == Notice("gce", None)
        assert [life.record.id for life in free_slices(list(fleet.lives.values()))] == ["slice-3"]
