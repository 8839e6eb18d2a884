"""Search all configurations, a process each: `python -m tests.simulation.explorer [WORDS OF A NAME]`."""

from __future__ import annotations

import logging
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed

import structlog

from .configurations import QUICK, THOROUGH
from .model import Configuration
from .search import FoundError, explore

#: One that takes longer is cut off, and fails.
_WITHIN_S = 4 * 3600.0


def _search(configuration: Configuration) -> str:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    return str(explore(configuration, within_s=_WITHIN_S))


def main(words: str) -> int:
    """Print what every search found; return how many failed."""
    chosen = [configuration for configuration in (*THOROUGH, *QUICK) if words in configuration.name]
    failed = 0
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for search in as_completed([pool.submit(_search, configuration) for configuration in chosen]):
            try:
                print(search.result(), flush=True)
            except (FoundError, TimeoutError) as error:
                failed += 1
                print(f"FAILED {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
