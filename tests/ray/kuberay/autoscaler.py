"""Ray's own autoscaler, the second version, with its real KubeRay provider, one step at a time."""

from typing import Any

import pytest
from ray.autoscaler._private.kuberay import autoscaling_config, node_provider
from ray.autoscaler.v2.autoscaler import Autoscaler
from ray.autoscaler.v2.instance_manager.cloud_providers.kuberay import cloud_provider
from ray.autoscaler.v2.instance_manager.config import KubeRayConfigReader
from ray.autoscaler.v2.instance_manager.subscribers.ray_stopper import RayStopper

from .kubernetes import CLUSTER, NAMESPACE, Kubernetes


class Steps:
    """An autoscaler whose steps are the test's: Ray's monitor makes one every five seconds, for ever."""

    def __init__(self, kubernetes: Kubernetes, gcs: Any, patch: pytest.MonkeyPatch) -> None:
        """Take the API server, a GCS client, and what puts the server in place of Ray's client."""
        # These two modules are all that makes clients.
        for module in (node_provider, cloud_provider):
            patch.setattr(module, "KubernetesHttpApiClient", lambda namespace: kubernetes)
        producer = autoscaling_config.AutoscalingConfigProducer(CLUSTER, NAMESPACE)
        self._autoscaler = Autoscaler("tests", KubeRayConfigReader(producer), gcs)
        self._gcs = gcs
        subscribers = self._autoscaler._instance_manager._status_update_subscribers
        self._stopper = next(part._executor for part in subscribers if isinstance(part, RayStopper))

    def step(self) -> Any:
        """Make one step and report it to the GCS, as Ray's monitor does; return what was reported, None if nothing."""
        state = self._autoscaler.update_autoscaling_state()
        if state is not None:
            self._gcs.report_autoscaling_state(state.SerializeToString())
        return state

    def settle(self) -> None:
        """Wait until the drains that were asked for, on a thread of the autoscaler, are done."""
        self._stopper.submit(lambda: None).result(timeout=10)
