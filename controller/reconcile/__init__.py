"""The loop: observe, sync, plan, commit, act, publish."""
