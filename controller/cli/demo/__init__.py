"""The demo: a fleet loses a slice in the middle of a training, replaces it, and the training goes on."""
