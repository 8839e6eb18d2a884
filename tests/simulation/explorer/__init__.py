"""An exhaustive search of the real core: every interleaving of a small fleet's facts, orders and time.

The reconciler that runs here is the one that users run; only the cluster (`cluster`) is a model. What a state is, is
derived from the records themselves (`fields`, `snapshot`), so that two states that differ in names and in the absolute
time alone are one. `search` visits all states that a configuration reaches, checks every one (`checks`), and follows
each, once healed, until the fleet has converged.
"""
