"""The words that all sides speak: shapes, settings, events, effects, the port to a cluster. Pure values."""
