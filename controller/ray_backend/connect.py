"""Use this process's Ray connection, or make one; refuse what cannot carry a fleet, with nothing touched.

A connection that was made here is left open: values of runs may be fetched after the fleet is closed. Ray closes it
when the process ends.
"""

from __future__ import annotations

import logging
import os
import re
import socket

import ray

from sliceform.controller.errors import (
    ClusterError,
    RayClientError,
    RayTokenError,
    RayUnreachableError,
    RayVersionError,
    RayWorkerError,
)
from sliceform.controller.ray_backend import private

#: The first Ray with all that is used here, label selectors per bundle among them.
MINIMUM = (2, 60)
#: How long the address of a cluster may take to accept a connection, seconds.
_PROBE_S = 5.0
_HOST_PORT = re.compile(r"(?P<host>[^/]+):(?P<port>\d+)")


def connect(address: str | None = None) -> str:
    """Connect to Ray unless the process is connected; return the id of the job that owns all we create.

    Args:
        address: as `ray.init` takes it; None = the variable `RAY_ADDRESS`, else the cluster on this machine.

    Raises:
        RayVersionError: Ray is older than 2.60.
        RayClientError: the process is, or would be, connected through Ray Client.
        RayWorkerError: the process is a Ray worker.
        RayUnreachableError: there is no cluster.
        RayTokenError: the cluster has a token that this process has not.

    """
    check_version(private.describe_version())
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    check_home(wanted)
    if not ray.is_initialized():
        _probe(wanted)
        try:
            _join(wanted)
        except ClusterError:
            raise
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _unreachable(wanted, error) from error
    return current_job()


def check_home(address: str) -> None:
    """Refuse a process in which a fleet cannot live: only the driver of a job takes all that it made along.

    Ray removes the groups of a driver with its job. Those made in an actor or a task stay until that *and* the job are
    dead (Ray 2.60): with the worker gone nobody would give them back, and its successor would wait behind them.

    Raises:
        RayClientError: the process is, or would be with this address, connected through Ray Client.
        RayWorkerError: the process is a Ray worker.

    """
    if private.client_connected() or (not ray.is_initialized() and address.startswith("ray://")):
        raise RayClientError(
            "Ray Client (ray://) cannot carry a fleet, which lives and dies with its driver: run the driver on the "
            "cluster, for example with `ray job submit`, and connect with the address of the GCS or `auto`"
        )
    if private.is_worker():
        raise RayWorkerError(
            "a fleet cannot live in an actor or a task of Ray, because its slices would stay when that ends: make the "
            "SliceController in the driver process, for example one started with `ray job submit`, and let the actor "
            "or task ask it"
        )


def current_job() -> str:
    """Return the id of the job of the present connection.

    Raises:
        ClusterError: this process is not connected. Ray would start a cluster of its own at the next call.

    """
    if not ray.is_initialized():
        raise ClusterError("the connection to Ray is closed")
    return str(ray.get_runtime_context().get_job_id())


def check_version(version: str) -> None:
    """Refuse a Ray that is too old.

    Raises:
        RayVersionError: it is older than `MINIMUM`.

    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is not None and tuple(map(int, numbers.groups())) < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        raise RayVersionError(
            f"Ray {version} is too old: install {wanted} or newer on the driver and on all nodes of the cluster"
        )


def _join(address: str) -> None:
    """Connect, by the very address of a cluster that is found here and takes this process without a token.

    For `auto` Ray turns tokens on where it finds one in the user's home, whatever the cluster has (2.60). The nodes of
    one without tokens cannot answer such a driver, and all actors die as they start.

    Raises:
        RayTokenError: the cluster has another token.

    """
    found = private.local_cluster() if address == "auto" else address
    taken = private.takes_us(found) if found is not None and _HOST_PORT.fullmatch(found) else None
    # It may be that Ray has only to turn on the token that is in the user's home.
    by_itself = address == "auto" and "RAY_AUTH_MODE" not in os.environ
    if taken is False and not by_itself:
        raise _token_missing(str(found))
    try:
        ray.init(address=found if taken and by_itself else address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise (_token_missing(str(found)) if taken is False else error) from error


def _token_missing(address: str) -> RayTokenError:
    return RayTokenError(
        f"the cluster at {address} refuses this process, which has not its token: set RAY_AUTH_MODE=token, and "
        "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or the file ~/.ray/auth_token as on its nodes"
    )


def _probe(address: str) -> None:
    """See whether anything listens, where that can be seen: Ray itself would go on trying for a minute."""
    found = _HOST_PORT.fullmatch(address)
    if found is None:
        return
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=_PROBE_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> RayUnreachableError:
    text = str(error).strip().partition("\n")[0] or repr(error)
    if address == "auto":
        advice = "call ray.init() first for one on this machine alone, or set RAY_ADDRESS to a cluster's address"
        return RayUnreachableError(f"no Ray cluster was found: {advice} ({text})")
    return RayUnreachableError(f"no Ray cluster answers at {address}: is it up, and is this its GCS address? ({text})")
