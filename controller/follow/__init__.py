"""Who follows the history as it happens: journal, log, metrics, callbacks."""
