"""Hold hosts of a slice that has not all of them yet: an autoscaler ends a host that has been idle for long.

With the first host that it ends, KubeRay takes the whole slice away: one whose hosts come far apart would never be
whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from ray.util.placement_group import PlacementGroup

from sliceform.controller.model.events import Node
from sliceform.controller.ray_backend import groups


class Holds:
    """A group on every host that is held, which takes nothing that anybody asks for."""

    def __init__(self, name: Callable[[str], str]) -> None:
        """Take what makes a group's name of its last part."""
        self._name = name
        self._groups: dict[str, PlacementGroup] = {}
        self._numbers = itertools.count(1)

    def adjust(self, nodes: Iterable[Node]) -> None:
        """Hold these hosts and no others."""
        wanted = {node.id: node for node in nodes}
        for node_id in self._groups.keys() - wanted.keys():
            groups.remove(self._groups.pop(node_id))
        for node_id in wanted.keys() - self._groups.keys():
            group = groups.holding_group(self._name(f"hold/{next(self._numbers)}"), wanted[node_id])
            if group is not None:
                self._groups[node_id] = group
