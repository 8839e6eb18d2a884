"""The record of a fleet: all that its loop went by and decided, tick by tick, in a file that can be replayed."""
