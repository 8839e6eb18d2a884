"""Scenarios: each file of `scenarios` shows one thing that once went wrong. And what reads and performs them.

`pytest --record-scenarios` writes the stories anew, and fails where something is not as expected.
"""

import re
from pathlib import Path

import pytest

from sliceform.controller.errors import UnknownSliceError
from sliceform.controller.testing.expects import KINDS
from sliceform.controller.testing.inputs import VERBS
from sliceform.controller.testing.scenario import Scenario, record
from sliceform.states import History

FILES = sorted(Path(__file__).with_name("scenarios").glob("*.txt"))

HEAD = """\
# A run ends.
fleet tpu:v4-8 slices=1
cluster places=a work_s=5

"""


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_scenario(path, pytestconfig):
    if pytestconfig.getoption("record_scenarios"):
        record(path)
        return
    try:
        Scenario.read(path).check()
    except AssertionError as error:
        pytest.fail(f"{error}\nif the story is right now, record it: pytest --record-scenarios {path}", pytrace=False)


def test_every_file_says_first_what_it_shows():
    assert FILES
    for path in FILES:
        assert path.read_text(encoding="utf-8").startswith("# "), path


def test_all_that_can_be_written_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    part = page[page.index("## Scenarios") : page.index("## Property tests")]
    missing = [word for word in (*VERBS, *KINDS) if not re.search(rf"[`|] ?{word}\b", part)]
    assert missing == []


@pytest.fixture
def scenario(tmp_path):
    """Writes a file of one fleet, with these lines after the head."""

    def write(*lines):
        path = tmp_path / "some.txt"
        path.write_text(HEAD + "\n".join((*lines, "")), encoding="utf-8")
        return path

    return write


class TestWhatIsExpected:
    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("expect run run-1 failed", "some.txt:7: expected run run-1 failed, but it is succeeded"),
            ("expect attempts run-1 1 1", "but its attempts are 1:succeeded"),
            ("expect attempts run-1 1:preempted", "but its attempts are 1:succeeded"),
            ("expect listed run-1 2..", "but 1 attempts are"),
            ("expect charged run-1 1 0", "but 0 preemptions and 0 failures are charged"),
            ("expect detail run-1 500..", "but it has "),
            ('expect result run-1 ~ "values [1]"', r"but it is 'values \[0\]'"),
            ('expect result run-1 !~ "[0]"', "but it is 'values "),
            ("expect slice slice-1 gone", "but it is ready"),
            ("expect slice slice-9 ready", "but it is gone"),
            ("expect slices 2..3 ready", "but there are 1 ready"),
            ("expect changes 2.. create", "expected changes 2.. create, but there were 1"),
            ("expect since slice-1 3", "but it is since "),
            ("expect since slice-9 3", "but it is gone"),
            ("expect avoided 1", "but there are 0"),
            ("expect kept 2", "but the cluster keeps 1 lives: slice-1"),
            ("expect why run-1 ~ preempted", "but it is told:\nrun-1 succeeded"),
            ("within 3 slices 1 draining", "expected slices 1 draining within 3 s, but there are 1 ready"),
            ("expect refused FleetClosedError tick 1 1", "but it was done"),
            ("expect refused FleetClosedError drain slice-9 0", "but it was refused with UnknownSliceError"),
        ],
    )
    def test_and_is_not_so_fails_with_what_there_is(self, scenario, line, says):
        with pytest.raises(AssertionError, match=says):
            Scenario.read(scenario("submit all 0", "within 30 run run-1 succeeded", line)).perform()

    def test_of_a_fleet_at_rest_is_not_so_while_something_goes_on(self, scenario):
        with pytest.raises(AssertionError, match="run-1 goes on"):
            Scenario.read(scenario("submit all 0", "tick 5 1", "expect rest")).perform()
        Scenario.read(scenario("submit all 0", "within 30 rest")).perform()

    def test_of_a_run_that_is_not_over_is_said_so(self, scenario):
        with pytest.raises(AssertionError, match="it is not over"):
            Scenario.read(scenario("submit all 0", "tick 5 1", 'expect result run-1 ~ "0"')).perform()


class TestALine:
    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("kil_host a 0", "some.txt:5: there is no input 'kil_host': use one of add_slice, allow, "),
            ("kill_host a", "some.txt:5: write kill_host PLACE WORKER_ID, not kill_host a"),
            ("submit all 0 prio=3", "some.txt:5: write submit SIZES|all BUDGET .*'prio=3' is unknown here"),
            ("keep_back slice-1 Release", "'Release' is no answer: write one of AgentFailed, "),
            ("add_slice b shape=gpu:4", "'gpu:4' is no shape: write tpu:v4-16, gpu:4x8"),
            ("inject lose=2", "lose must be between 0 and 1"),
            ("expect", "some.txt:5: 'expect' does not say what is expected: use one of run, "),
            ("expect luck 3", "some.txt:5: there is nothing to expect of 'luck': use one of run, "),
            ("expect run run-1", "some.txt:5: write run RUN STATE, not run run-1"),
            ("expect why run-1 = x", "some.txt:5: write why .* write ~ before what it is to contain"),
            ("expect refused X kil_host", "there is no input 'kil_host'"),
            ("within soon slices 1 ready", "some.txt:5: could not convert"),
            ("repeat 3", "some.txt:5: repeat has no end"),
            ("repeat", "some.txt:5: write repeat TIMES"),
            ("end", "some.txt:5: there is no input 'end'"),
            ('expect why run-1 ~ "x', "some.txt:5: No closing quotation"),
        ],
    )
    def test_that_is_none_is_refused_with_its_file_and_number(self, scenario, line, says):
        with pytest.raises(ValueError, match=says.replace("|all", r"\|all")):
            Scenario.read(scenario(line))

    @pytest.mark.parametrize(
        ("head", "says"),
        [
            ("tick 1 1", "x:1: write `fleet SHAPE"),
            ("fleet slices=1\ncluster", "x:2: 'slices=1' is no shape"),
            ("fleet tpu:v4-8\ncluster work_ms=1", "x:2: 'work_ms=1' is unknown here; there may be places="),
            ("fleet tpu:v4-8\ncluster\nsettings settle=1", "x:3: 'settle=1' is unknown here; there may be resync_s="),
            ("fleet tpu:v4-8\ncluster\nsettings settle_s=-1", "(?s)x:3: .*settle_s"),
        ],
    )
    def test_of_the_head_that_says_what_cannot_be_is_refused(self, head, says):
        with pytest.raises(ValueError, match=says):
            Scenario.parse(head, "x")

    def test_that_cannot_be_performed_is_named(self, scenario):
        with pytest.raises(UnknownSliceError) as raised:
            Scenario.read(scenario("tick 2 1", "drain slice-7 0")).perform()
        assert raised.value.__notes__ == ["some.txt:6: drain slice-7 0"]

    def test_about_a_run_that_is_not_there_is_named(self, scenario):
        with pytest.raises(ValueError, match="there is no run 'run-2': 1 were submitted"):
            Scenario.read(scenario("submit all 0", "cancel run-2 0")).perform()


class TestARecord:
    LINES = ("submit all 0", "# Wait.", "within 30 run run-1 succeeded")

    def test_is_the_same_when_made_twice(self, scenario):
        path = scenario(*self.LINES)
        record(path)
        once = path.read_bytes()
        assert once.decode().startswith(HEAD + "submit all 0\n# Wait.\nwithin 30 run run-1 succeeded\n---\n     1.000")
        record(path)
        assert path.read_bytes() == once
        Scenario.read(path).check()

    def test_that_differs_is_shown_as_a_diff(self, scenario):
        path = scenario(*self.LINES)
        record(path)
        path.write_text(path.read_text().replace("on a", "on b"))
        with pytest.raises(AssertionError, match=r"(?s)some.txt: its story.*\n-[^\n]* on b\n\+[^\n]* on a\n"):
            Scenario.read(path).check()

    def test_is_not_made_where_something_is_not_as_expected(self, scenario):
        path = scenario(*self.LINES, "expect run run-1 failed")
        before = path.read_bytes()
        with pytest.raises(AssertionError, match=r"some\.txt:8: expected run run-1 failed"):
            record(path)
        assert path.read_bytes() == before

    def test_says_how_much_the_history_forgot(self):
        head = HEAD.replace("\n\n", "\nsettings history_limit=8\n\n")
        story = Scenario.parse(f"{head}repeat 3\nsubmit all 0\ntick 8 1\nend\n").perform().story
        assert story[0].endswith("changes before these are forgotten)")

    def test_that_was_put_together_reads_as_itself(self, scenario):
        read = Scenario.read(scenario("repeat 2", "submit all 3 priority=1", "end", "within 30 rest"))
        again = Scenario.parse(str(read), read.name)
        assert again.head == read.head
        assert [step.what for step in again.steps] == [step.what for step in read.steps]


class TestWhatCanBeDone:
    """Beside what the scenarios of the folder do."""

    def perform(self, text):
        return Scenario.parse(HEAD + text).perform()

    def test_work_takes_its_own_time_and_raises_as_often_as_it_is_told(self):
        self.perform("""
            submit all 2 takes_s=1 raises=2
            within 20 run run-1 succeeded
            expect charged run-1 0 2
            expect result run-1 ~ "values [3]"
            submit all 0 raises=1
            within 20 result run-2 ~ "attempt 1 was to raise"
        """)

    def test_runs_go_by_priority_and_wait_and_last_only_so_long(self):
        self.perform("""
            submit all 0 takes_s=50
            tick 5 1
            submit all 0
            submit all 0 priority=1
            submit all 0 max_wait_s=9
            within 20 run run-4 cancelled
            within 60 run run-3 running
            expect run run-2 waiting
            within 20 run run-2 succeeded
            submit all 0 takes_s=900 timeout_s=20
            within 40 run run-5 cancelled
        """)

    def test_a_run_is_for_the_slices_that_it_names(self):
        self.perform("""
            scale 2 0
            add_slice b
            wait_ready 2 30
            submit 1 0 pinned=slice-2
            tick 3 1
            expect slice slice-2 running
        """)

    def test_places_are_avoided_and_allowed(self):
        self.perform("""
            avoid a for_s=1000 reason=mould
            tick 10 1
            expect avoided 1
            expect slices 1 pending
            expect why slice-1 ~ avoided
            allow a
            within 10 slices 1 ready
        """)

    @pytest.mark.parametrize("end", ["give slice-1", "heal", "mend"])
    def test_an_answer_is_kept_back_until_it_is_given_or_all_is_well(self, end):
        self.perform(f"""
            keep_back slice-1 Reserved
            tick 30 1
            expect slices 1 pending
            {end}
            tick 3 1
            expect slices 1 ready
        """)

    @pytest.mark.parametrize("end", ["quota off", "mend"])
    def test_a_quota_refuses_what_is_beyond_it_until_it_ends(self, end):
        self.perform(f"""
            scale 2 0
            add_slice b
            quota 1
            tick 20 1
            expect slices 1 ready
            {end}
            within 60 slices 2 ready
        """)

    def test_what_the_tables_do_not_allow_is_told(self, monkeypatch):
        monkeypatch.setattr(History, "violations", lambda _: ("slice-1 was revived",))
        with pytest.raises(AssertionError, match="scenario: slice-1 was revived"):
            self.perform("tick 1 1")
