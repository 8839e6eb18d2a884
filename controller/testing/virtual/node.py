"""The process of one virtual host: starts the Ray node and ends it when told to, or with its owner.

`VirtualCluster` runs this file by path, in a session of its own, and gives it

* on standard input one line of JSON, the `RayParams` to start with; then `stop`, for a clean end.
  End of file means that the owner is gone;
* a file descriptor (its only argument) on which it answers one line of JSON: how the start went.

SIGTERM is left to Ray's own handler, as in `ray start --block`: drain, then end.

It must not import sliceform, which the environment of a host may hide.
"""

import ctypes
import json
import os
import sys
import threading
import traceback
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36


def main(report_fd: int) -> None:
    """Start the node, report, and wait for the end."""
    os.set_inheritable(report_fd, False)  # noqa: FBT003 - a builtin's positional flag
    lines = os.fdopen(os.dup(0), "r")
    spec = json.loads(lines.readline())
    # Nothing started here may hold the pipe that tells us of our owner's death.
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _adopt_orphans()
    threading.Thread(target=_watch_owner, args=(lines,), daemon=True).start()
    try:
        node = _start(spec)
        report = {
            "node_id": node.node_id,
            "address": node.gcs_address,
            "raylet_pid": node.all_processes["raylet"][0].process.pid,
        }
    except BaseException:
        _report(report_fd, {"error": traceback.format_exc()})
        raise
    _report(report_fd, report)
    _stop_asked.wait()
    node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)
    sys.stdout.flush()
    os._exit(0)


_stop_asked = threading.Event()


def _watch_owner(lines: Any) -> None:
    for line in lines:
        if line.strip() == "stop":
            _stop_asked.set()
    if not _stop_asked.is_set():
        # What Ray started dies with us (its fate sharing), the rest by the cluster's warden.
        os.killpg(0, 9)


def _adopt_orphans() -> None:
    """Become the parent of what our descendants leave behind, so that it stays findable."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _report(fd: int, report: dict[str, Any]) -> None:
    with os.fdopen(fd, "w") as stream:
        stream.write(json.dumps(report) + "\n")


def _start(spec: dict[str, Any]) -> Any:
    from ray._private import utils
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    class HostNode(Node):  # type: ignore[misc]
        def start_api_server(self, **_: Any) -> None:
            """Leave the dashboard out: `include_dashboard=False` still starts its process."""
            self._webui_url = ""

    missing = utils.get_dashboard_dependency_error()
    if spec["metrics"] and missing is not None:
        raise missing
    # Not what happens to be installed decides: the whole agent makes a host slower to start, and larger.
    utils.get_dashboard_dependency_error = lambda: None if spec["metrics"] else ImportError("not wanted")

    return HostNode(RayParams(**spec["params"]), head=spec["head"])


if __name__ == "__main__":
    main(int(sys.argv[1]))
