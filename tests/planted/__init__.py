"""Planted faults: single changes of the core, and whether the tests of its pure part find them.

`python -m tests.planted --seed 0 --count 60` (`make planted`). It works on a copy in a temporary folder.

**What may be changed** is the population, in three kinds:

* rows (`rows.py`): each row of the four tables and of the couplings. It is dropped, leads to another destination (a
  coupling: to another trigger), or an effect of it is left out (a coupling: its reason). A row that a loop makes for
  several sources is one row for each source.
* effects (`effects.py`): each place under `reconcile/` and in `model/effects.py` where an effect becomes a request.
  It is not sent; it is sent twice, or again and again, because its result is never taken as observed; an argument is
  missing or is its neighbour; or it is the request of another effect. To put it into the outbox twice would be no
  change: the outbox is keyed.
* comparisons (`comparisons.py`): in `states/`, but for what draws it, and under `reconcile/`, each comparison, `and`,
  `or`, `not`, `min`, `max`, and number. A comparison gets another bound or turns round, a number becomes one more or
  one less. Those in an f-string are left out: Python 3.11 does not say where they stand.

**What is drawn** (`draw.py`): `random.Random(seed)` shuffles the places of each kind. They are taken in turns, one of
each kind, until there are enough; at each place one of its changes is chosen. So no place is changed twice.

**How it is judged** (`judge.py`): one run of the pure part, with coverage, tells which tests run which line. Those of
the changed line run, the quickest first, until one fails. A change is found if a test fails or takes too long, or if
the tests cannot even be imported. What nothing can tell from the original stands in `explained.py` with the reason, and
is not counted as found. At least 95 % of the others have to be found.
"""
