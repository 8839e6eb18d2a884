"""What waits brings exactly the replicas that it needs: counted by Ray's scheduler and provider, without raylets."""

import logging
import random
from collections.abc import Iterator

import pytest
from ray.autoscaler.v2.instance_manager import config
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import AutoscalingState, ClusterResourceConstraint

from sliceform.controller import GpuSlice, TpuSlice
from sliceform.controller.ray_backend.explain import explain_demand

from .kubernetes import Group, Kubernetes
from .simulated import SimulatedWorld

PAIRS = Group("pairs", 2, 8, {"cpu": "4", "google.com/tpu": "4"}, "2x2x2")
FOURS = Group("fours", 4, 8, PAIRS.limits, "2x2x4")
SIXTEENS = Group("sixteens", 16, 4, {"cpu": "4", "google.com/tpu": "4"}, "4x4x4")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The autoscaler says at length what it does."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def run(world: SimulatedWorld, seconds: int, *, start: bool = False, operator: bool = True) -> None:
    """Let time pass; pods run at once if they may."""
    for _ in range(seconds):
        for pod in world.kubernetes.waiting() if start else ():
            world.start(pod)
        world.second(autoscaler=int(world.gcs.now) % 5 == 0, operator=operator)


def codes(world: SimulatedWorld) -> list[str]:
    """What `why()` says of the demand for slices."""
    assert world.fleet.demands is not None
    assert world.fleet.demands.standing is not None
    return [finding.code for finding in explain_demand(world.fleet.demands.standing, world.shape)]


def test_one_slice_of_two_hosts_brings_one_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    world.fleet.wanted = 1
    run(world, 20, start=True)
    assert world.fleet.ready == 1
    assert world.kubernetes.asked == [("pairs", 1)]
    assert world.demanded == []


class Schedule:
    """Random orders, pods that come as they like and pods that fail; says what was asked for beyond what was needed."""

    def __init__(self, seed: int, group: Group, pod_type: str, patch: pytest.MonkeyPatch, *, at_once: bool) -> None:
        self.random = random.Random(seed)
        self.kubernetes = Kubernetes([group])
        self.world = SimulatedWorld(self.kubernetes, TpuSlice(pod_type), patch)
        self.group, self.at_once = group, at_once
        self.surplus = 0
        self._phase = self.random.randrange(5)
        self._asked = 0

    def run(self, seconds: int, *, faults: bool) -> None:
        for _ in range(seconds):
            if faults and self.random.random() < 0.03:
                self.world.fleet.wanted = self.random.randint(0, 4)
            if faults and self.random.random() < 0.02 and len(self.kubernetes.pods) > 1:
                self.kubernetes.evict(self.random.choice(list(self.kubernetes.pods.values())[1:]))
            self._start_pods()
            operator = self.random.random() < 0.5
            useful = self._useful()
            self.world.second(autoscaler=int(self.world.gcs.now) % 5 == self._phase, operator=operator)
            self._count(useful)

    def settle(self) -> None:
        """Run on without faults until the fleet has what it wants, and nothing else is left."""
        for _ in range(60):
            self.run(10, faults=False)
            pods, wanted = len(self.kubernetes.pods) - 1, self.world.fleet.wanted
            if self.world.fleet.ready == wanted and pods == wanted * self.group.hosts == self._alive():
                return
        raise AssertionError(f"{self.world.fleet.ready} of {self.world.fleet.wanted}: {self.kubernetes}")

    def _start_pods(self) -> None:
        waiting = self.kubernetes.waiting()
        if self.at_once:
            for replica in {pod.replica for pod in waiting if self.random.random() < 0.1}:
                for pod in self.kubernetes.members(replica):
                    if not pod.running:
                        self.world.start(pod)
        elif waiting and self.random.random() < 0.5:
            self.world.start(self.random.choice(waiting))

    def _useful(self) -> int:
        """How many replicas are to stay: the autoscaler is about to take away those with a host that goes."""
        going = {host.pod for host in self.world.gcs.hosts.values() if host.draining or not host.alive}
        pods = [pod for pod in self.kubernetes.pods.values() if pod.name not in self.kubernetes.doomed(self.group.name)]
        return self.kubernetes.replicas(self.group.name) - len({pod.replica for pod in pods if pod.name in going})

    def _count(self, useful: int) -> None:
        asked = sum(count for _, count in self.kubernetes.asked)
        if asked > self._asked:
            self.surplus += max(0, useful + asked - self._asked - self.world.fleet.wanted)
            self._asked = asked

    def _alive(self) -> int:
        return sum(host.alive for host in self.world.gcs.hosts.values()) - 1


@pytest.mark.parametrize("hosts", ["together", "one-by-one"])
@pytest.mark.parametrize("seed", [*range(5), *(pytest.param(n, marks=pytest.mark.long) for n in range(5, 25))])
def test_random_schedules_ask_for_no_slice_too_many(seed: int, hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = Schedule(seed, PAIRS, "v4-16", monkeypatch, at_once=hosts == "together")
    schedule.run(300, faults=True)
    schedule.settle()
    assert schedule.surplus == 0
    schedule.world.fleet.close()
    assert schedule.world.gcs.groups == []


def test_a_slice_whose_hosts_come_far_apart_is_kept_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoscaler ends hosts that are idle for a minute, and with one of them goes its slice."""
    world = SimulatedWorld(Kubernetes([FOURS]), TpuSlice("v4-32"), monkeypatch)
    world.fleet.wanted = 1
    run(world, 10)
    pods = world.kubernetes.waiting()
    assert len(pods) == 4
    for pod in reversed(pods):
        world.start(pod)
        run(world, 100)
    assert world.fleet.ready == 1
    assert world.kubernetes.asked == [("fours", 1)]
    assert [group.name for group in world.gcs.groups] == [
        f"sliceform/fleet-0/1/slice-1/{part}" for part in ("head", "hosts")
    ]


def test_slices_of_sixteen_hosts_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """0, 1, 4, 2 and 0 slices; more than one at once is more than Ray's autoscaler asks for."""
    monkeypatch.setattr(config, "AUTOSCALER_MAX_CONCURRENT_LAUNCHES", 16)
    world = SimulatedWorld(Kubernetes([SIXTEENS]), TpuSlice("v4-128"), monkeypatch)
    for wanted, asked in ((1, 1), (4, 4), (2, 4), (0, 4)):
        world.fleet.wanted = wanted
        run(world, 150, start=True)
        assert world.fleet.ready == wanted
        assert world.kubernetes.asked == [("sixteens", 1)] * asked
        assert world.kubernetes.replicas("sixteens") == wanted
        assert len(world.kubernetes.pods) == 1 + 16 * wanted


def test_of_several_worker_groups_the_right_one_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts of both have as many chips; only the head resource tells them apart."""
    world = SimulatedWorld(Kubernetes([SIXTEENS, PAIRS]), TpuSlice("v4-16"), monkeypatch)
    for wanted in (1, 3):
        world.fleet.wanted = wanted
        run(world, 40, start=True)
        assert world.fleet.ready == wanted
    assert world.kubernetes.asked == [("pairs", 1), ("pairs", 2)]


def test_more_than_a_group_may_have_is_asked_for_and_not_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is room for comes; the autoscaler says of the rest that no node type can meet it."""
    group = Group("pairs", 2, 2, PAIRS.limits, PAIRS.topology)
    world = SimulatedWorld(Kubernetes([group]), TpuSlice("v4-16"), monkeypatch)
    world.fleet.wanted = 3
    run(world, 100, start=True)
    assert world.fleet.ready == 2
    assert world.kubernetes.replicas("pairs") == 2
    assert codes(world) == ["autoscaler_refuses", "waiting"]
    assert len(world.demanded) == 1
    world.fleet.wanted = 2
    run(world, 5)
    assert world.demanded == []


def test_an_api_server_that_does_not_answer_holds_up_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    world.fleet.wanted = 1
    run(world, 20, start=True)
    world.kubernetes.reachable = False
    world.fleet.wanted = 2
    run(world, 60)
    assert world.fleet.ready == 1
    assert len(world.demanded) == 1
    assert codes(world) == ["autoscaler_silent", "waiting"]
    world.kubernetes.reachable = True
    run(world, 20, start=True)
    assert world.fleet.ready == 2
    assert world.kubernetes.asked == [("pairs", 1), ("pairs", 1)]


def test_pods_that_never_run_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    world.fleet.wanted = 2
    run(world, 400)
    assert world.kubernetes.asked == [("pairs", 2)]
    assert world.gcs.groups == []
    assert codes(world) == ["waiting"]


@pytest.mark.parametrize("joined", [0, 1])
def test_pods_that_are_evicted_while_they_start_come_again_by_themselves(
    joined: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator makes the replica anew; a slice beside it is not touched."""
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    world.fleet.wanted = 1
    run(world, 20, start=True)
    world.fleet.wanted = 2
    run(world, 10)
    for pod in world.kubernetes.waiting()[:joined]:
        world.start(pod)
    run(world, 3)
    world.kubernetes.evict(world.kubernetes.waiting()[-1])
    # The operator waits for what is left of the replica to end.
    run(world, 15, operator=False)
    run(world, 60, start=True)
    assert world.fleet.ready == 2
    assert world.kubernetes.asked == [("pairs", 1), ("pairs", 1)]


def test_a_request_of_another_program_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours is met by what it asks for, and nothing of it by ours."""
    group = Group("cpus", 1, 4, {"cpu": "8"})
    world = SimulatedWorld(Kubernetes([PAIRS, group]), TpuSlice("v4-16"), monkeypatch)
    request = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"CPU": 8.0})] * 2)
    world.gcs.constraint = ClusterResourceConstraint(resource_requests=request)
    world.fleet.wanted = 1
    run(world, 30, start=True)
    assert world.fleet.ready == 1
    assert sorted(world.kubernetes.asked) == [("cpus", 2), ("pairs", 1)]
    world.fleet.wanted = 0
    run(world, 150)
    assert world.kubernetes.replicas("pairs") == 0
    assert world.kubernetes.replicas("cpus") == 2


def test_more_slices_than_the_autoscaler_asks_for_at_once_come_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for ten nodes at once: two slices of four hosts, and two nodes that it would round off and wait for."""
    world = SimulatedWorld(Kubernetes([FOURS]), TpuSlice("v4-32"), monkeypatch)
    world.fleet.wanted = 5
    run(world, 60, start=True)
    assert world.fleet.ready == 5
    assert [count for _, count in world.kubernetes.asked] == [2, 2, 1]


def test_hosts_that_were_rounded_off_are_not_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody asks for one host of a slice; the autoscaler believes it on its way, and counts it for others."""
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    stray = world.gcs.create([{"TPU": 4}], "PACK", "somebody's", None)
    run(world, 30)
    world.gcs.remove(stray)
    assert [row.count for row in world.gcs.state.pending_instance_requests] == [1]
    assert world.kubernetes.asked == []
    for wanted in (1, 3):
        world.fleet.wanted = wanted
        run(world, 60, start=True)
        assert world.fleet.ready == wanted
    assert world.kubernetes.asked == [("pairs", 1), ("pairs", 2)]


def test_slices_of_more_hosts_than_it_asks_for_at_once_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for ten of sixteen hosts and rounds them down; `why()` says which variable to set."""
    world = SimulatedWorld(Kubernetes([SIXTEENS]), TpuSlice("v4-128"), monkeypatch)
    world.fleet.wanted = 1
    run(world, 100, start=True)
    assert world.kubernetes.asked == []
    assert codes(world) == ["autoscaler_rounds"]


def test_a_slice_of_one_host_is_asked_for_by_its_head_group(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group("singles", 1, 8, PAIRS.limits, "2x2x1")
    world = SimulatedWorld(Kubernetes([group]), TpuSlice("v4-8"), monkeypatch)
    for wanted, asked in ((1, [1]), (4, [1, 3]), (2, [1, 3]), (0, [1, 3])):
        world.fleet.wanted = wanted
        run(world, 100, start=True)
        assert world.fleet.ready == world.kubernetes.replicas("singles") == wanted
        assert [count for _, count in world.kubernetes.asked] == asked
    assert world.fleet.demands is None


def test_a_gpu_slice_brings_its_hosts_by_replicas_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its group of as many bundles counts hosts that have joined by itself: here they come one by one."""
    group = Group("gpus", 2, 8, {"cpu": "4", "nvidia.com/gpu": "2"})
    world = SimulatedWorld(Kubernetes([group]), TpuSlice("v4-16"), monkeypatch)
    shape = GpuSlice(2, 2)
    made = [world.gcs.create([shape.bundle] * 2, shape.strategy, f"slice-{i}", None) for i in range(2)]
    for _ in range(8):
        run(world, 7)
        for pod in world.kubernetes.waiting()[:1]:
            world.start(pod)
    assert all(group.nodes for group in made)
    assert sum(count for _, count in world.kubernetes.asked) == world.kubernetes.replicas("gpus") == 2


def test_a_slice_more_is_asked_for_while_others_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The autoscaler counts pods that have not joined for any demand; here one joins just then, too."""
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    for wanted in (1, 2, 4):
        world.fleet.wanted = wanted
        run(world, 2)
        for pod in world.kubernetes.waiting()[-1:]:
            world.start(pod)
        run(world, 15)
        assert world.kubernetes.replicas("pairs") == wanted
    run(world, 20, start=True)
    assert world.fleet.ready == 4
    assert sum(count for _, count in world.kubernetes.asked) == 4


def test_after_slices_went_for_idleness_the_next_is_asked_for_within_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    world.fleet.wanted = 1
    run(world, 20, start=True)
    world.fleet.wanted = 0
    while world.kubernetes.replicas("pairs"):
        run(world, 1)
    world.fleet.wanted = 1
    run(world, 45, start=True)
    assert world.fleet.ready == 1
    assert world.kubernetes.asked == [("pairs", 1), ("pairs", 1)]


def test_two_fleets_of_one_shape_get_their_slices_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way counts for both, so that none is asked for too many."""
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch, fleets=2)
    for fleet in world.fleets:
        fleet.wanted = 2
    run(world, 150, start=True)
    assert [fleet.ready for fleet in world.fleets] == [2, 2]
    assert world.kubernetes.replicas("pairs") == 4
    assert sum(count for _, count in world.kubernetes.asked) == 4


def test_a_slice_more_is_asked_for_soon_after_one_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts that have joined and are the fleet's are not taken for pods that went."""
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    for wanted in (1, 2, 3):
        world.fleet.wanted = wanted
        run(world, 12, start=True)
        assert world.fleet.ready == wanted


def test_nothing_is_asked_for_before_the_autoscaler_has_told_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head group would be rounded off. One of the first version tells nothing, and brings a slice for a head."""
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch)
    world.gcs.state = AutoscalingState()
    world.fleet.wanted = 1
    for _ in range(28):
        world.second(autoscaler=False)
    assert world.gcs.groups == []
    run(world, 60, start=True)
    assert world.fleet.ready == 1
    assert world.kubernetes.asked == [("pairs", 1)]
    world.gcs.state = AutoscalingState()
    world.fleet.wanted = 2
    for _ in range(5):
        world.second(autoscaler=False)
    assert [group.bundles for group in world.gcs.groups if not group.nodes] == [[{"TPU-v4-16-head": 1}]]


def test_a_new_driver_counts_what_the_last_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods of a group that has never had a node may be anybody's, until the autoscaler meets demand with them."""
    world = SimulatedWorld(Kubernetes([PAIRS]), TpuSlice("v4-16"), monkeypatch, fleets=2)
    world.fleet.wanted = 1
    run(world, 10)
    world.fleet.close()
    first, second = world.fleets
    world.fleets = [second]
    second.wanted = 1
    run(world, 30)
    assert world.demanded == []
    for pod in world.kubernetes.waiting():
        world.start(pod)
        run(world, 20)
    assert (first.ready, second.ready) == (0, 1)
    assert world.kubernetes.asked == [("pairs", 1)]
