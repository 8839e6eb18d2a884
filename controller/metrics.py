"""The documented path of `sliceform.controller.follow.metrics`."""

from sliceform.controller.follow.metrics import Meter, Metered, Metric

__all__ = ["Meter", "Metered", "Metric"]
