"""What a driver holds: the controller, its runs, and the thread that drives the loop."""

from sliceform.controller.api.controller import SliceController

__all__ = ["SliceController"]
