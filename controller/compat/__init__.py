"""The interface of eFormer's Ray slice pool, over a sliceform fleet: for code that is not to change but in an import.

`SlicePoolManager` takes the place of `eformer.executor.ray.pool_manager.SlicePoolManager`. New code is better served by
`sliceform.controller.SliceController`; docs/migrating.md shows both.
"""

from sliceform.controller.compat.infos import ActorPoolMember, HostInfo, SliceInfo
from sliceform.controller.compat.manager import SlicePoolManager
from sliceform.controller.errors import InsufficientSlicesError

__all__ = ["ActorPoolMember", "HostInfo", "InsufficientSlicesError", "SliceInfo", "SlicePoolManager"]
