"""A simulated cluster that carries out what a controller asks for, without Ray."""

from sliceform.controller.testing.sim.backend import SimBackend

__all__ = ["SimBackend"]
