"""Use this process's Ray connection, or make one; refuse what cannot carry a fleet, with nothing touched."""

from __future__ import annotations

import logging
import os

import ray

from sliceform.controller.errors import RayClientError, RayUnreachableError, RayVersionError
from sliceform.controller.ray_backend import private

#: The first Ray with all that is used here: label selectors per bundle among them.
MINIMUM = (2, 60)


def connect() -> bool:
    """Connect to Ray; return whether a connection was made (False: the process had one).

    Raises:
        RayVersionError: Ray is older than 2.60.
        RayClientError: the process is, or would be, connected through Ray Client.
        RayUnreachableError: there is no cluster.

    """
    check_version(ray.__version__)
    address = os.environ.get("RAY_ADDRESS", "")
    if private.client_connected() or (not ray.is_initialized() and address.startswith("ray://")):
        raise RayClientError(
            "Ray Client (ray://) cannot carry a fleet: run the driver on the cluster, for example with `ray job submit`"
        )
    if ray.is_initialized():
        return False
    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RayUnreachableError(
            "no Ray cluster was found; call ray.init() first for one on this machine, "
            f"or set RAY_ADDRESS to the cluster's address ({error})"
        ) from error
    return True


def check_version(version: str) -> None:
    """Refuse a Ray that is too old.

    Raises:
        RayVersionError: it is older than `MINIMUM`.

    """
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        raise RayVersionError(
            f"Ray {version} is too old: sliceform needs {wanted} or newer on the driver and all nodes"
        )
