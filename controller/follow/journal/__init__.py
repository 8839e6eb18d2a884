"""The journal: the history of a fleet in a file, written as it happens and read by any number of others."""

from sliceform.controller.follow.journal.reader import Driver, Journal, open_journal
from sliceform.controller.follow.journal.tally import Wish

__all__ = ["Driver", "Journal", "Wish", "open_journal"]
