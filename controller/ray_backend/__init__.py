"""The cluster behind a fleet is Ray.

Calls that wait on Ray's GCS run on one I/O thread, in order; answers arrive on Ray's own threads and are only noted
there. Everything created is owned by the driver, so Ray removes it when the driver ends, however it ends.
"""

from sliceform.controller.ray_backend.ray_backend import RayBackend

__all__ = ["RayBackend"]
