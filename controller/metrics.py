"""The documented path of `sliceform.controller.model.metrics`."""

from sliceform.controller.model.metrics import Meter, Metered, Metric

__all__ = ["Meter", "Metered", "Metric"]
