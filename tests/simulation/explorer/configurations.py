"""What is searched: small fleets, each with all that may go wrong with it at a time."""

from __future__ import annotations

from .model import Configuration

#: One slice of one host: in every run of the tests.
QUICK = (
    Configuration("1 x 1, two faults", faults=2, late=0, orders=("submit",)),
    Configuration("1 x 1, one fault, two answers late", orders=("submit",)),
)

#: All others.
THOROUGH = (
    Configuration("1 x 1, two faults, two answers late", faults=2, orders=("submit",)),
    Configuration("1 x 1, all orders", orders=("submit", "cancel 1", "drain 1", "close 1")),
    Configuration("1 x 2", hosts=2, orders=("submit",)),
    Configuration("2 x 1", places=2, sizes=(2,), orders=("submit",)),
    Configuration("1 x 1, one spare", places=2, spares=1, orders=("submit",)),
    Configuration("sizes 1 and 2, drain", places=2, sizes=(1, 2), orders=("submit", "drain 1")),
    Configuration("sizes 1 and 2, growth", places=2, sizes=(1, 2), orders=("submit", "scale 1")),
    Configuration("sizes 1 and 2, cancel", places=2, sizes=(1, 2), orders=("submit", "cancel 1")),
    Configuration("sizes 1 and 2, close", places=2, sizes=(1, 2), orders=("submit", "close 1")),
)
