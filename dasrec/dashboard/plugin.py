"""The plugin of the scheduler: it listens, samples, and puts pages into the dashboard."""

from __future__ import annotations

import logging
import time
from functools import partial
from importlib import import_module
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin
from distributed.protocol.pickle import dumps
from tornado.ioloop import IOLoop, PeriodicCallback

from dasrec.blocks import TOPIC
from dasrec.dashboard.state import State, Usage

logger = logging.getLogger(__name__)

NAME = "dasrec"
PAGES = ("/dasrec", "/individual-dasrec")
_EVERY = 1000  # milliseconds

Counts = dict[str, tuple[int, int]]
"""Bytes that each process has read and written."""


class Watcher(SchedulerPlugin):
    """Keeps the state of all jobs, and serves it as a page of the scheduler's dashboard.

    Notes
    -----
    Events that came before it did are taken from the scheduler, which keeps the last thousand.
    Without a dashboard it only listens.
    """

    name = NAME
    idempotent = True

    async def start(self, scheduler: Any) -> None:
        """Ask workers what they read and write, add the pages, and catch up."""
        self.scheduler = scheduler
        self.state = State()
        self._counts: Counts = {}
        self._counted = time.time()
        counter = dumps(_counter()())
        await scheduler.register_worker_plugin(None, counter, f"{NAME}-io", idempotent=True)
        self._clock = PeriodicCallback(self.sample, _EVERY)
        self._clock.start()
        self.served = add_pages(scheduler, self.state)
        for when, message in scheduler.get_events(TOPIC):
            self.state.take(message, when)

    async def close(self) -> None:
        """Stop sampling."""
        self._clock.stop()

    def log_event(self, topic: str, msg: Any) -> None:
        """Take what a job tells."""
        if topic == TOPIC:
            self.state.take(msg, time.time())

    def transition(self, key: Any, start: str, finish: str, *_: Any, **facts: Any) -> None:
        """Note the time of a block."""
        if start != "processing" or finish != "memory" or not isinstance(key, str):
            return
        label, dash, number = key.rpartition("-")
        if dash and number.isdecimal():
            spans = facts.get("startstops") or ()
            taken = sum(
                each["stop"] - each["start"] for each in spans if each["action"] == "compute"
            )
            self.state.finish(label, int(number), taken, time.time())

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Note that nobody is left to end a job."""
        del scheduler
        self.state.lose(client, time.time())

    def sample(self) -> None:
        """Note what the workers hold, read and write."""
        workers = list(self.scheduler.workers.values())
        # several workers may share a process, and a host
        counts = {
            counted["process"]: (counted["read"], counted["written"])
            for worker in workers
            if (counted := worker.metrics.get(NAME))
        }
        flows = {worker.host: worker.metrics.get("host_net_io", {}) for worker in workers}
        now = time.time()
        gap, self._counted = max(0.001, now - self._counted), now  # a clock may be put back
        read, written = (each / gap for each in _growth(self._counts, counts))
        self._counts = counts
        usage = Usage(
            memory=max((worker.metrics.get("memory", 0) for worker in workers), default=0),
            limit=min((each.memory_limit for each in workers if each.memory_limit), default=0),
            read=read,
            written=written,
            received=sum(flow.get("read_bps", 0.0) for flow in flows.values()),
            sent=sum(flow.get("write_bps", 0.0) for flow in flows.values()),
        )
        self.state.sample(usage, now)


def _growth(before: Counts, after: Counts) -> tuple[int, int]:
    """Return what processes that were there before have read and written since."""
    pairs = [(before[name], counts) for name, counts in after.items() if name in before]
    return sum(new[0] - old[0] for old, new in pairs), sum(new[1] - old[1] for old, new in pairs)


def _counter() -> type[WorkerPlugin]:
    """Return a plugin that travels by value: workers need no dasrec for it."""

    class Counter(WorkerPlugin):
        def setup(self, worker: Any) -> None:
            import os

            import psutil

            process = psutil.Process()
            name = f"{worker.address.rpartition(':')[0]}-{os.getpid()}"

            def figures(worker: Any) -> dict[str, Any]:
                del worker
                counts = process.io_counters()
                return {
                    "process": name,
                    "read": getattr(counts, "read_chars", counts.read_bytes),
                    "written": getattr(counts, "write_chars", counts.write_bytes),
                }

            if hasattr(process, "io_counters"):
                worker.metrics["dasrec"] = figures

    return Counter


def add_pages(scheduler: Any, state: State) -> bool:
    """Put the pages into the running dashboard of a scheduler; False if it has none."""
    try:
        # a scheduler may do without Bokeh, so neither is imported above
        bokeh = import_module("bokeh.server.tornado")
        core = import_module("distributed.dashboard.core")
        pages = import_module("distributed.dashboard.scheduler")
        show_page = import_module("dasrec.dashboard.page").show_page
    except ImportError as error:
        logger.warning("this scheduler has no dashboard, so there is no page of dasrec: %s", error)
        return False
    found = getattr(scheduler.http_application, "applications", ())
    first = next((each for each in found if isinstance(each, bokeh.BokehTornado)), None)
    if first is None:
        return False
    variables = pages.template_variables(scheduler)
    documents = {place: partial(show_page, state, alone=place != PAGES[0]) for place in PAGES}
    added = core.BokehApplication(documents, scheduler, first.prefix, variables)
    scheduler.http_application.add_application(added)
    added.initialize(IOLoop.current())
    added.start()
    # where other programs, like JupyterLab, look which plots there are
    first.applications.update(added.applications)
    variables["pages"].insert(1, NAME)
    variables["plots"].append({"url": PAGES[1].strip("/"), "name": NAME})
    return True
