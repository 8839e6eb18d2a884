"""What the autoscaler of the tests starts when it wants a node: loaded by the autoscaler's own process."""

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class SliceProvider(FakeMultiNodeProvider):
    """Ray's fake provider, whose nodes are raylets on this machine; a TPU node type brings a whole slice at a time.

    As on clouds, the labels of a slice's hosts are known when they are there: the node type's configuration has none;
    and a slice of which one host cannot be started goes as a whole.
    """

    _slices = 0

    def _create_node_with_resources_and_labels(
        self,
        node_config: dict[str, Any],
        tags: dict[str, str],
        count: int,
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        with self.lock:
            self._slices += 1
            before = set(self._nodes)
            try:
                for worker_id in range(node_config["hosts"]):
                    self._start_host(node_config.get("pod_type"), worker_id, tags, resources, labels)
            except Exception:
                for node in set(self._nodes) - before:
                    self.terminate_node(node)
                raise

    def _start_host(
        self,
        pod_type: str | None,
        worker_id: int,
        tags: dict[str, str],
        resources: dict[str, float],
        labels: dict[str, str],
    ) -> None:
        has, own = dict(resources), dict(labels)
        if pod_type:
            own["ray.io/tpu-slice-name"] = f"grown-{self._slices}"
            own["ray.io/tpu-worker-id"] = str(worker_id)
            own["ray.io/tpu-pod-type"] = pod_type
            if worker_id:
                del has[f"TPU-{pod_type}-head"]
        super()._create_node_with_resources_and_labels({}, tags, 1, has, own)
