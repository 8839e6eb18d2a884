"""What happened, in order, and what can be asked of it."""

from sliceform.states.history.changes import Change, Story, format_story
from sliceform.states.history.history import History

__all__ = ["Change", "History", "Story", "format_story"]
