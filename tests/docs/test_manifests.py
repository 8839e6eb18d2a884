"""The manifests of docs/deploy ask Kubernetes for what the shapes of the driver in docs/examples need."""

import re
import runpy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _node_type_from_group_spec
from ray.autoscaler._private.kuberay.utils import tpu_node_selectors_to_type

from sliceform.controller import Settings, TpuSlice
from sliceform.controller.model.shapes import SliceShape
from sliceform.controller.model.topology import same_topology
from sliceform.controller.ray_backend.connect import MINIMUM

DOCS = Path(__file__).parents[2] / "docs"
SHAPES: dict[str, SliceShape] = runpy.run_path(str(DOCS / "examples" / "driver.py"))["SHAPES"]
PAGE = (DOCS / "kuberay.md").read_text(encoding="utf-8")
SPOT = "cloud.google.com/gke-spot"
TPU, GPU = "google.com/tpu", "nvidia.com/gpu"
#: What GKE's kubelet leaves a pod of a spot node, unless it is told otherwise; seconds.
SPOT_S = 15.0
#: How much longer than its work's grace a driver may take to give everything back and to end; seconds.
CLOSING_S = 30.0


def load(name: str) -> dict[str, Any]:
    """Return the first document of a manifest: the cluster or job."""
    documents = list(yaml.safe_load_all((DOCS / "deploy" / name).read_text(encoding="utf-8")))
    assert all(document["apiVersion"] and document["metadata"]["name"] for document in documents)
    return documents[0]


def cluster_of(name: str) -> dict[str, Any]:
    """Return the cluster that a manifest describes."""
    spec: dict[str, Any] = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def container(group: dict[str, Any]) -> dict[str, Any]:
    """Return the only container of a group's pods."""
    (only,) = group["template"]["spec"]["containers"]
    return only


def variables(group: dict[str, Any]) -> dict[str, str]:
    return {row["name"]: row["value"] for row in container(group).get("env", [])}


def group_of_driver(cluster: dict[str, Any]) -> dict[str, Any]:
    """Return the group in whose pod the driver runs: one with a resource for it, else the head."""
    groups = cluster["workerGroupSpecs"]
    asked = (group for group in groups if "driver" in group["rayStartParams"].get("resources", ""))
    return next(asked, cluster["headGroupSpec"])


def groups_with(resource: str, cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [group for group in cluster["workerGroupSpecs"] if resource in container(group)["resources"]["limits"]]


MANIFESTS = sorted(path.name for path in (DOCS / "deploy").glob("*.yaml"))
manifests = pytest.mark.parametrize("name", MANIFESTS)


def test_the_page_names_all_manifests() -> None:
    assert set(re.findall(r"\(deploy/([\w-]+\.yaml)\)", PAGE)) == set(MANIFESTS)
    assert len(MANIFESTS) == 3


@manifests
def test_versions_and_tokens(name: str) -> None:
    cluster = cluster_of(name)
    assert tuple(map(int, cluster["rayVersion"].split(".")[:2])) >= MINIMUM
    assert f"rayproject/ray:{cluster['rayVersion']}-py311" in PAGE
    assert cluster["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", [name for name in MANIFESTS if "tpu" in name])
def test_a_replica_of_a_tpu_group_is_one_slice(name: str) -> None:
    """Hosts, topology, chips and pod type are those of the shape, for the autoscaler's reader of such groups, too."""
    shape = SHAPES["tpu"]
    assert isinstance(shape, TpuSlice)
    (group,) = groups_with(TPU, cluster_of(name))
    wanted = group["template"]["spec"]["nodeSelector"]
    topology = wanted["cloud.google.com/gke-tpu-topology"]
    assert same_topology(topology, shape.topology)
    assert tpu_node_selectors_to_type(topology, wanted["cloud.google.com/gke-tpu-accelerator"]) == shape.pod_type
    assert group["numOfHosts"] == shape.hosts
    assert int(container(group)["resources"]["limits"][TPU]) == shape.chips_per_host
    offered = _node_type_from_group_spec(group, is_head=False)["resources"]
    assert offered[shape.head_resource] == 1
    assert shape.bundle.items() <= {**offered, "CPU": shape.bundle["CPU"]}.items()
    assert offered["CPU"] >= shape.bundle["CPU"]


def test_a_replica_of_a_gpu_group_is_one_host() -> None:
    shape = SHAPES["gpu"]
    (group,) = groups_with(GPU, cluster_of("kuberay-gpu-cluster.yaml"))
    assert group.get("numOfHosts", 1) == 1
    offered = _node_type_from_group_spec(group, is_head=False)["resources"]
    assert all(offered[resource] >= amount for resource, amount in shape.bundle.items())


@manifests
def test_there_are_hosts_for_the_slices_that_are_asked_for(name: str) -> None:
    """What the job's entry point, or the page's command, asks for is there without an autoscaler."""
    cluster = cluster_of(name)
    kind = "tpu" if groups_with(TPU, cluster) else "gpu"
    entrypoints = load("kuberay-tpu-job.yaml")["spec"]["entrypoint"] + PAGE
    slices = int(re.findall(rf"python /app/driver\.py {kind} (\d+)", entrypoints)[0])
    (group,) = groups_with(TPU if kind == "tpu" else GPU, cluster)
    assert group["replicas"] * group.get("numOfHosts", 1) >= slices * SHAPES[kind].hosts
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@manifests
def test_limits_are_requests_and_the_metrics_port_has_the_name_that_is_looked_for(name: str) -> None:
    cluster = cluster_of(name)
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        resources = container(group)["resources"]
        assert resources["limits"] == resources["requests"]
        assert {"containerPort": 8080, "name": "metrics"} in container(group)["ports"]


def may_be_on_spot(group: dict[str, Any]) -> bool:
    """Whether a group's pods can be on spot nodes."""
    pod = group["template"]["spec"]
    terms = pod.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    never = {"key": SPOT, "operator": "DoesNotExist"}
    return terms is None or not all(never in term["matchExpressions"] for term in terms["nodeSelectorTerms"])


@manifests
def test_head_and_driver_are_not_on_spot_nodes(name: str) -> None:
    cluster = cluster_of(name)
    drivers = [
        group for group in cluster["workerGroupSpecs"] if "driver" in group["rayStartParams"].get("resources", "")
    ]
    assert not any(may_be_on_spot(group) for group in [cluster["headGroupSpec"], *drivers])
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        if pod.get("nodeSelector", {}).get(SPOT) == "true":
            assert {"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"} in pod["tolerations"]


@manifests
def test_the_graces_of_workers_fit_into_each_other(name: str) -> None:
    for group in groups_with(TPU, cluster_of(name)) + groups_with(GPU, cluster_of(name)):
        pod = group["template"]["spec"]
        drain_s = float(variables(group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert drain_s < pod["terminationGracePeriodSeconds"]
        if SPOT in pod["nodeSelector"]:
            assert drain_s < SPOT_S


@manifests
def test_the_graces_of_the_driver_fit_into_each_other(name: str) -> None:
    driver = group_of_driver(cluster_of(name))
    stop_s = float(variables(driver)["RAY_JOB_STOP_WAIT_TIME_S"])
    in_order = [
        Settings().close_grace_s + CLOSING_S,
        stop_s,
        driver["template"]["spec"]["terminationGracePeriodSeconds"],
    ]
    assert all(less < more for less, more in pairwise(in_order))


def test_the_job_is_the_cluster_and_a_hook_that_stops_its_driver() -> None:
    job = load("kuberay-tpu-job.yaml")["spec"]
    head = container(job["rayClusterSpec"]["headGroupSpec"])
    command = head.pop("lifecycle")["preStop"]["exec"]["command"]
    assert command[:3] == ["ray", "job", "stop"]
    assert command[-1] == job["jobId"]
    assert job["rayClusterSpec"] == load("kuberay-tpu-cluster.yaml")["spec"]


def test_the_journal_is_on_the_claimed_volume() -> None:
    for name in ("kuberay-tpu-cluster.yaml", "kuberay-tpu-job.yaml"):
        _, claim = yaml.safe_load_all((DOCS / "deploy" / name).read_text(encoding="utf-8"))
        head = cluster_of(name)["headGroupSpec"]
        (volume,) = head["template"]["spec"]["volumes"]
        (mount,) = container(head)["volumeMounts"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert mount["name"] == volume["name"]
        assert Path(variables(head)["JOURNAL"]).is_relative_to(mount["mountPath"])


def test_the_page_says_the_numbers_of_the_manifests() -> None:
    """The table of graces has what the files have."""
    rows = dict(re.findall(r"^\| ([^|]+) \| [^|]+ \| ([\d, a-z]+) \|$", PAGE, re.MULTILINE))
    (tpu,), (gpu,) = groups_with(TPU, cluster_of(MANIFESTS[1])), groups_with(GPU, cluster_of(MANIFESTS[0]))
    spot, other = (variables(group)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] for group in (tpu, gpu))
    assert rows["how long work may save when its pod is ended"] == f"{spot} on spot nodes, {other} elsewhere"
    killed = [group["template"]["spec"]["terminationGracePeriodSeconds"] for group in (tpu, gpu)]
    assert rows["when the pod is killed"] == f"{killed[0]}, {killed[1]}"
    assert rows["how long work may save when the driver is ended"] == f"{Settings().close_grace_s:g}"
    driver = group_of_driver(cluster_of(MANIFESTS[0]))
    assert rows["when the driver is killed"] == variables(driver)["RAY_JOB_STOP_WAIT_TIME_S"]
    assert rows["when the driver's pod is killed"] == str(driver["template"]["spec"]["terminationGracePeriodSeconds"])
