"""Real raylets on this machine that look like the hosts of slices."""

from sliceform.controller.testing.virtual.cluster import VirtualCluster

__all__ = ["VirtualCluster"]
