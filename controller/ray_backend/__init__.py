"""The port to a cluster, on Ray."""

from sliceform.controller.ray_backend.backend import RayBackend

__all__ = ["RayBackend"]
