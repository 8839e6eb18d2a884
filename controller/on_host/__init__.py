"""What runs on hosts: the agent, and the process that runs the user's function.

Nothing has to be installed there: these modules travel as source (`bootstrap`). At module level they import only the
standard library and ray, since every import is paid on every host of every slice.
"""
