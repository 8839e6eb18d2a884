"""Real raylets on this machine that look like the hosts of slices."""
