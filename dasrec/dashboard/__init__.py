"""A page about the jobs of dasrec on Dask's dashboard: the door to a scheduler.

``dask scheduler --preload dasrec.dashboard`` adds it from the start.
"""

from __future__ import annotations

import logging
from typing import Any

from dasrec.dashboard.plugin import NAME, PAGES, Watcher

logger = logging.getLogger(__name__)

__all__ = ["Watcher", "dask_setup", "show"]


def show(client: Any) -> str | None:
    """Add the page to the dashboard of a client's scheduler, unless it is there, and return where.

    It shows what clients of that scheduler do with dasrec, also what they did just before.
    :func:`dasrec.cluster.connect` and ``dasrec --cluster`` call it.

    Parameters
    ----------
    client : distributed.Client

    Returns
    -------
    str or None
        The address of the page; None if there is none: the log says why. Work goes on without it.

    Notes
    -----
    The scheduler must be able to import dasrec, as it must for its tasks. It keeps some 100 kB a
    job, of the last 20. What it costs is told in ``docs/dashboard.md``.
    """
    try:
        client.register_plugin(Watcher())
        served = client.run_on_scheduler(_is_served)
    except Exception as error:  # noqa: BLE001 - whatever the scheduler lacks, work goes on
        logger.warning(
            "the dashboard gets no page of dasrec: %s (%s). Install the same dasrec where the "
            "scheduler runs to have it; all else works without",
            error,
            type(error).__name__,
        )
        return None
    if not served:
        return None
    place = str(client.dashboard_link).rpartition("/")[0] + PAGES[0]
    logger.info("jobs can be watched at %s", place)
    return place


def _is_served(dask_scheduler: Any) -> bool:
    return bool(dask_scheduler.plugins[NAME].served)


def dask_setup(scheduler: Any) -> None:
    """Add the page to a scheduler that is told to preload this module; it starts plugins itself."""
    if hasattr(scheduler, "add_plugin"):  # not a worker or a client
        scheduler.add_plugin(Watcher(), name=NAME, idempotent=True)
