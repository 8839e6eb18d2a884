"""One thing found that explains why something is as it is."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing found, in the cluster or in the history, that explains why a slice or a run is as it is."""

    #: Closed code: `no_such_pod_type`, `chips_held`, `host_missing`, `avoided`, `waiting`, ...
    code: str
    #: A sentence for people.
    text: str
    #: What it is about: a group's name, a worker id, a place.
    subject: str = ""
