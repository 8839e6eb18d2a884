"""Explicit state machines for slices, hosts, runs and attempts: tables, couplings, records, history, diagrams.

Everything here is pure: no I/O, no clock, no thread, no logging.
"""

from sliceform.states.attempts import ATTEMPT_TABLE, AttemptState, AttemptTrigger
from sliceform.states.couplings import COUPLINGS, TABLES, Coupling, Couplings, Whose
from sliceform.states.diagram import explain, markdown_table, mermaid
from sliceform.states.effects import Effect
from sliceform.states.errors import (
    ForgottenError,
    InvalidTransition,
    SliceformError,
    TableError,
)
from sliceform.states.history.attempt_log import AttemptLog, AttemptRecord, HostEnd
from sliceform.states.history.changes import Change, Story, format_story
from sliceform.states.history.durations import Durations
from sliceform.states.history.history import History
from sliceform.states.history.losses import LostSlice
from sliceform.states.history.queries import HistoryQueries, Link, Selection
from sliceform.states.history.replay import replay
from sliceform.states.history.run_stories import Pause, RunStory
from sliceform.states.hosts import HOST_TABLE, HostState, HostTrigger
from sliceform.states.invariants import check_records
from sliceform.states.reasons import Reason
from sliceform.states.records import HostRecord, SliceRecord
from sliceform.states.runs import RUN_TABLE, RunState, RunTrigger
from sliceform.states.slices import LIVE, SLICE_TABLE, SliceState, SliceTrigger
from sliceform.states.table import Kind, Row, TransitionTable

__all__ = [
    "ATTEMPT_TABLE",
    "COUPLINGS",
    "HOST_TABLE",
    "LIVE",
    "RUN_TABLE",
    "SLICE_TABLE",
    "TABLES",
    "AttemptLog",
    "AttemptRecord",
    "AttemptState",
    "AttemptTrigger",
    "Change",
    "Coupling",
    "Couplings",
    "Durations",
    "Effect",
    "ForgottenError",
    "History",
    "HistoryQueries",
    "HostEnd",
    "HostRecord",
    "HostState",
    "HostTrigger",
    "InvalidTransition",
    "Kind",
    "Link",
    "LostSlice",
    "Pause",
    "Reason",
    "Row",
    "RunState",
    "RunStory",
    "RunTrigger",
    "Selection",
    "SliceRecord",
    "SliceState",
    "SliceTrigger",
    "SliceformError",
    "Story",
    "TableError",
    "TransitionTable",
    "Whose",
    "check_records",
    "explain",
    "format_story",
    "markdown_table",
    "mermaid",
    "replay",
]
