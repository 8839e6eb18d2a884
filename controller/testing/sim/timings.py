"""How long things take in a simulated cluster, and what it leaves to chance."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class SimTimings:
    """Delays of a `SimBackend`, in seconds unless said otherwise."""

    #: A reservation that fits is placed.
    place_s: float = 0.5
    #: A host group that fits is placed.
    assemble_s: float = 0.1
    #: An agent starts and answers.
    agent_s: float = 0.3
    #: A host process starts.
    launch_s: float = 0.1
    #: What a host process takes for its work.
    work_s: float = 10.0
    #: A host process ends once it has been told to stop; what does not by its deadline is killed then.
    stop_s: float = 0.1
    #: An agent sees that a process has gone.
    gone_s: float = 0.01
    #: A group is removed.
    remove_s: float = 0.1
    #: A call that is open to a host that was killed fails.
    detect_s: float = 0.05
    #: The node table shows the death of a host that was killed.
    node_death_s: float = 0.5
    #: The node table shows the death of a host that was frozen.
    frozen_death_s: float = 64.0
    #: The cluster begins to look for another place for what was on a dead node.
    reschedule_s: float = 1.0
    #: The node table is read; 0 = as the fleet's settings say.
    nodes_every_s: float = 0.0
    #: The agent of every host is heard; 0 = as the fleet's settings say.
    beat_s: float = 0.0
    #: Every delay varies by up to this part of it, drawn from the seed.
    jitter: float = 0.0
    #: How often, from 0.0 to 1.0, the cluster takes any free place instead of the one that has been free for longest.
    whim: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not a time."""
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must be 0 or more")
        if self.jitter >= 1:
            raise ValueError("jitter is a part of each delay: it must be less than 1")
        if self.whim > 1:
            raise ValueError("whim is a probability: it must be 1 or less")
