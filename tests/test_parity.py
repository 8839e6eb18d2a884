"""Everything that eFormer's Ray slice pool did is done here: each behaviour, and the tests that fail without it."""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]


class Row(NamedTuple):
    #: What the pool did, or was meant to do.
    behaviour: str
    tests: tuple[str, ...]


_DEVICES = "tests/controller/on_host/test_devices.py"
_NOTICES = "tests/controller/on_host/test_notices.py"
_AGENT = "tests/controller/on_host/test_agent.py"
_PROCESS = "tests/controller/on_host/test_process.py"
_FLEET = "tests/ray/test_fleet.py"
_GROWS = "test_an_empty_cluster_grows_by_what_a_fleet_lacks_and_shrinks_after_it"
_OLD = "tests/controller/test_compat.py"
_OLD_ON_RAY = "tests/ray/test_compat.py"

ROWS = {
    1: Row(
        "a pool has exactly as many slices as it was told to have, and can be told otherwise",
        (
            f"{_FLEET}::test_sizes_two_four_two_keep_the_first_two_slices",
            "tests/controller/test_loop.py::TestConvergence::test_growing_and_shrinking_leaves_the_others_alone",
            f"{_OLD}::TestSizes::test_change_without_touching_the_slices_that_stay",
        ),
    ),
    2: Row(
        "of several valid sizes the largest that can be had is taken; no size is refused, none reached is an error",
        (
            f"{_FLEET}::test_two_or_four_is_ready_at_two_and_grows_with_the_fourth_slice",
            "tests/controller/test_spec.py::test_wrong_sizes_are_refused",
            "tests/controller/test_errors.py::test_insufficient_slices_says_why_for_each",
            f"{_OLD}::TestSizes::test_the_largest_that_can_be_had_will_do",
            f"{_OLD}::TestSizes::test_none_of_which_can_be_had_are_said_why",
        ),
    ),
    3: Row(
        "a larger valid size is tried later, but not over and over",
        (
            "tests/controller/test_elastic.py::TestGrowth::test_waits_until_they_have_been_free_for_a_while_and_says_so",
            "tests/controller/test_policy.py::test_growth_pauses_twice_as_long_each_time_up_to_a_bound",
            f"{_OLD}::TestSizes::test_a_larger_one_is_worth_a_try_when_it_is_there",
        ),
    ),
    4: Row(
        "the head of every slice is reserved, so that nobody else takes the slice",
        (
            "tests/contract/test_backend.py::TestLife::test_of_a_slice_from_reservation_to_release",
            "tests/contract/test_backend.py::TestLife::test_never_shares_its_place",
        ),
    ),
    5: Row(
        "the hosts of a slice are reserved together, one node each, in the order of their worker ids",
        (
            f"{_FLEET}::test_rank_equals_worker_id_twenty_times_however_hosts_registered",
            "tests/ray/test_shapes.py::test_a_gang_of_gpu_hosts_has_its_gpus_and_a_node_per_host",
        ),
    ),
    6: Row(
        "name, hosts, addresses, chips and nodes of a slice are found out; a host that is missing is waited for",
        (
            "tests/controller/test_status.py::test_shows_every_host_with_its_node",
            "tests/controller/test_sync.py::TestPlaced::test_hosts_go_ahead_one_by_one_and_the_slice_last",
            f"{_FLEET}::test_why_tells_causes_apart",
            f"{_OLD}::TestInfos::test_tell_of_a_slice_and_its_hosts",
        ),
    ),
    7: Row(
        "the cluster's autoscaler learns what is missing",
        (
            f"tests/ray/test_autoscaling.py::{_GROWS}",
            "tests/controller/test_plan.py::TestCount::test_what_is_missing_is_created",
        ),
    ),
    8: Row(
        "an actor on every host tells of it: id, slice, devices, health, node",
        (
            "tests/controller/test_sim.py::TestAgents::test_answer_with_node_address_and_devices",
            "tests/ray/test_on_host.py::test_agent_and_host_process_work_where_sliceform_cannot_be_imported",
            f"{_OLD}::TestInfos::test_are_those_of_now",
        ),
    ),
    9: Row(
        "members that are unhealthy, dead or silent are replaced",
        (
            f"{_FLEET}::test_losing_a_host_leaves_the_other_slices_alone",
            "tests/controller/test_loop.py::TestSilence::test_of_one_host_is_the_loss_of_its_slice",
            f"{_OLD}::TestPrepare::test_puts_a_replacement_in_the_place_of_a_slice_that_was_lost",
        ),
    ),
    10: Row(
        "a preemption that the cloud announces is noticed",
        (
            f"{_NOTICES}::TestMetadataServer::test_preempted_stands_with_its_deadline_until_it_is_withdrawn",
            f"{_NOTICES}::TestMetadataServer::test_termination_counts_and_migration_is_only_logged",
            "tests/ray/test_notice.py::test_a_notice_to_one_host_is_one_to_all_hosts_of_the_run",
            "tests/controller/test_loop.py::TestNotice::test_tells_the_work_on_all_slices_and_drains_when_it_is_gone",
        ),
    ),
    11: Row(
        "everything is ready before work starts",
        (
            "tests/controller/test_run.py::TestQueue::test_is_first_come_first_served_and_says_what_a_run_waits_for",
            f"{_OLD}::TestPrepare::test_never_goes_on_with_fewer",
        ),
    ),
    12: Row(
        "a function runs on every host of a slice, with arguments, variables and resources of the call",
        (
            f"{_OLD_ON_RAY}::test_options_of_a_call",
            f"{_OLD}::TestCalls::test_to_each_host_have_variables_of_their_own",
            f"{_OLD}::TestMake::test_honours_or_refuses_what_a_call_asks_for",
        ),
    ),
    13: Row(
        "results come by slice or in one list, waited for or not",
        (
            "tests/controller/test_run.py::TestResult::test_comes_by_rank_and_by_slice",
            f"{_OLD}::TestCalls::test_to_the_whole_pool_come_nested_flat_or_as_values",
        ),
    ),
    14: Row(
        "each call has a process of its own, which Ray does not start again; Ray remote functions are taken",
        (
            "tests/ray/test_on_host.py::test_a_function_runs_and_is_seen_to_start_and_to_be_gone",
            "tests/contract/test_backend.py::TestWork::test_runs_once_however_often_it_is_launched",
            f"{_OLD_ON_RAY}::test_a_resumable_execution_survives_the_loss_of_a_slice",
        ),
    ),
    15: Row(
        "a new call ends what the host still runs, by force if it must",
        (
            f"{_OLD}::TestCancel::test_by_a_new_call_to_the_host",
            f"{_OLD_ON_RAY}::test_cancelling_a_reference_ends_the_work",
            f"{_FLEET}::test_cancel_leaves_no_process",
        ),
    ),
    16: Row(
        "what still holds a host's chips is ended before a call",
        (
            f"{_AGENT}::test_prepare_ends_earlier_attempts_and_keeps_their_tombstones",
            f"{_DEVICES}::TestHolders::test_what_a_run_of_ours_left_is_killed_and_nothing_else",
            f"{_DEVICES}::TestHolders::test_those_of_others_are_killed_if_that_is_asked_for",
            f"{_DEVICES}::TestHolders::test_are_not_looked_for_unless_asked",
        ),
    ),
    17: Row(
        "libtpu's lock file, and what an earlier call left on a host, is cleared away before a call",
        (
            f"{_AGENT}::test_prepare_clears_what_agents_that_are_gone_left_and_nothing_of_the_living",
            f"{_DEVICES}::TestLockfile::test_is_removed_when_nobody_holds_it",
            f"{_DEVICES}::TestLockfile::test_of_another_users_goes_through_sudo_that_never_asks",
        ),
    ),
    18: Row(
        "a host's function finds its id, slice and devices in its environment",
        (
            f"{_PROCESS}::test_the_function_sees_who_it_is",
            f"{_OLD_ON_RAY}::test_a_resumable_execution_survives_the_loss_of_a_slice",
        ),
    ),
    19: Row(
        "jax.distributed is left after every call",
        (f"{_PROCESS}::test_leaving_jax_is_bounded",),
    ),
    20: Row(
        "hosts and slices shut down with a grace, and their groups are removed",
        (
            "tests/controller/test_sim.py::TestRelease::test_lets_work_end_then_removes_hosts_and_then_the_head",
            "tests/controller/test_loop.py::TestDrain::test_by_an_operator_gives_the_work_its_time_and_is_replaced",
            f"{_OLD}::TestEnd::test_shutdown_lets_one_slice_go",
        ),
    ),
    21: Row(
        "the whole pool can be drained",
        (
            "tests/controller/test_api.py::TestClose::test_leaves_nothing_and_is_harmless_the_second_time",
            f"{_OLD}::TestEnd::test_drain_lets_go_of_everything_and_the_pool_can_be_filled_again",
        ),
    ),
    22: Row(
        "waiting for slices is bounded, and those that came are kept",
        (
            "tests/controller/test_status.py::TestWhy::test_too_few_slices_in_time_say_why_each_one_is_missing",
            "tests/controller/test_loop.py::TestNotReady::test_a_reservation_has_its_time",
        ),
    ),
    23: Row(
        "times and limits can be set by environment variables",
        (
            "tests/controller/test_settings.py::test_environment_goes_before_defaults_and_arguments_before_both",
            "tests/controller/test_settings.py::test_every_setting_has_an_effect",
        ),
    ),
    24: Row(
        "several slices work together: they know the coordinator, their number and their own",
        (
            f"{_PROCESS}::test_ours_wins_over_the_users_and_several_slices_have_megascale",
            f"{_PROCESS}::test_one_slice_has_no_megascale_even_where_the_node_or_the_user_sets_it",
            f"{_FLEET}::test_a_run_returns_by_rank_and_rank_is_the_worker_id",
        ),
    ),
    25: Row(
        "work is tried again after preemptions and after failures, counted apart",
        (
            f"{_FLEET}::test_a_run_restarts_after_its_slice_is_lost",
            "tests/controller/test_attempts.py::test_budgets_are_counted_apart",
            "tests/ray/test_classification.py::test_what_takes_a_host_away_is_a_preemption_and_a_dead_agent_is_not",
            "tests/ray/test_elastic.py::test_a_run_shrinks_after_a_loss_and_grows_again",
        ),
    ),
    26: Row(
        "the pool's methods and handles serve the executor that was written against them",
        (
            f"{_OLD_ON_RAY}::test_a_resumable_execution_survives_the_loss_of_a_slice",
            f"{_OLD_ON_RAY}::test_the_users_exception_comes_back",
        ),
    ),
}


@cache
def collected(path: str) -> frozenset[str]:
    """Return the names of the tests in a file, as pytest writes them."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            names |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return frozenset(name for name in names if name.rpartition("::")[2].startswith("test"))


def test_no_behaviour_is_left_out() -> None:
    assert list(ROWS) == list(range(1, 27))


@pytest.mark.parametrize("number", ROWS)
def test_the_tests_of_a_behaviour_exist(number: int) -> None:
    row = ROWS[number]
    assert row.tests, row.behaviour
    for test in row.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), f"{row.behaviour}: there is no {path}"
        assert name in collected(path), f"{row.behaviour}: there is no {test}"
