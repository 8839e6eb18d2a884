"""The documented path of `sliceform.controller.follow.journal`."""

from sliceform.controller.follow.journal import Driver, Journal, Wish, open_journal

__all__ = ["Driver", "Journal", "Wish", "open_journal"]
