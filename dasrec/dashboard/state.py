"""What jobs have told of themselves, in bounded memory; knows neither distributed nor Bokeh."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dask.utils import parse_bytes

MOST_JOBS = 20
MOST_ITERATIONS = 1000
MOST_SAMPLES = 240
MOST_STAGES = 6
MOST_BINS = 120
_PAUSE = 30.0  # seconds after which runs outside a job belong to another

Message = Mapping[str, Any]


class Sample(NamedTuple):
    """What the cluster did at a moment: seconds since the job began, rates a second, bytes."""

    seconds: float
    rows: float
    read: float
    written: float
    received: float
    sent: float
    memory: float  # of the largest worker


class Usage(NamedTuple):
    """What one worker says: bytes that it holds and may hold, and rates, in bytes a second."""

    memory: int
    limit: int
    read: float
    written: float
    received: float
    sent: float


@dataclass
class Run:
    """One run of block tasks: how far it is, and how long blocks took.

    Attributes
    ----------
    slowest : seconds of the slowest block of each of ``len(slowest)`` equal parts of the run; 0 for
        what is not done
    """

    name: str
    blocks: int
    rows: int
    begun: float
    done: int = 0
    seconds: float = 0.0
    last: float = 0.0
    slowest: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make room for the blocks."""
        self.slowest = [0.0] * min(self.blocks, MOST_BINS)

    def add(self, number: int, seconds: float, when: float) -> float:
        """Note that a block is done; return its share of the rows."""
        if number >= self.blocks or self.done >= self.blocks:  # done again when a worker had died
            return 0.0
        place = number * len(self.slowest) // self.blocks
        self.slowest[place] = max(self.slowest[place], seconds)
        self.done += 1
        self.seconds += seconds
        self.last = when
        return self.rows / self.blocks

    @property
    def mean(self) -> float:
        """Seconds that a block took on average; 0 if none is done."""
        return self.seconds / self.done if self.done else 0.0

    @property
    def balance(self) -> float:
        """Slowest block / mean; 0 if none is done."""
        return max(self.slowest) / self.mean if self.mean else 0.0


@dataclass
class Job:
    """One job: a fit, an evaluation, an ingest. Times are seconds of the scheduler's clock."""

    key: str
    name: str
    client: str
    begun: float
    loose: bool = False  # no more than runs outside a job
    status: str = "running"
    ended: float | None = None
    iterations: int = 0
    monitor: str = ""
    memory: int = 0  # bytes that one worker may hold
    limit: float = 0.0  # seconds
    first: float = 0.0  # when iterations began
    records: list[dict[str, float]] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)  # when the last few iterations ended
    stages: dict[str, Run] = field(default_factory=dict)  # the last run of each name, newest last
    samples: list[Sample] = field(default_factory=list)
    rows: float = 0.0
    read: float = 0.0
    written: float = 0.0
    _step: int = 1
    _pending: list[Sample] = field(default_factory=list)
    _sampled: tuple[float, float] = (0.0, 0.0)

    @property
    def stage(self) -> Run | None:
        """The run that began last."""
        return next(reversed(self.stages.values()), None)

    @property
    def spread(self) -> list[Run]:
        """The last runs of several blocks, the newest last."""
        return [run for run in self.stages.values() if run.blocks > 1 and run.done]

    def add_run(self, run: Run) -> None:
        """Begin a run in place of the last one of its name."""
        self.stages.pop(run.name, None)
        self.stages[run.name] = run
        if len(self.stages) > MOST_STAGES:
            del self.stages[next(iter(self.stages))]

    def add_record(self, record: Mapping[str, float], when: float) -> None:
        """Note an iteration; of very many, every other of the older ones goes."""
        self.records.append(dict(record))
        if len(self.records) > MOST_ITERATIONS:
            self.records = self.records[:-1:2] + self.records[-1:]
        self.arrived = [*self.arrived[-3:], when]

    def add_sample(self, when: float, usage: Usage) -> None:
        """Note what the cluster does; of very many samples, two become one."""
        before, rows = self._sampled if self._sampled[0] else (self.begun, 0.0)
        gap = when - before
        if gap <= 0:
            return
        self._sampled = when, self.rows
        self.read += usage.read * gap
        self.written += usage.written * gap
        rate = (self.rows - rows) / gap
        flows = usage.read, usage.written, usage.received, usage.sent
        self._pending.append(Sample(when - self.begun, rate, *flows, usage.memory))
        if len(self._pending) >= self._step:
            self.samples.append(_merge(self._pending))
            self._pending = []
        if len(self.samples) >= MOST_SAMPLES:
            pairs = zip(self.samples[::2], self.samples[1::2], strict=True)
            self.samples = [_merge(pair) for pair in pairs]
            self._step *= 2

    def seconds(self, now: float) -> float:
        """Return how long it has taken."""
        return (now if self.ended is None else self.ended) - self.begun

    def left(self, now: float) -> float | None:
        """Return in how many seconds it ends, or its stage if it does not say more; None: unknown.

        Goes by the last three iterations. A fit with patience may end sooner.
        """
        if self.ended is not None:
            return None
        if self.iterations:
            if len(self.arrived) < 2:
                return None
            each = (self.arrived[-1] - self.arrived[0]) / (len(self.arrived) - 1)
            more = self.iterations - int(self.records[-1]["iteration"])
            left = more * each - (now - self.arrived[-1])
            if self.limit:
                left = min(left, self.first + self.limit - now)
            return max(0.0, left)
        run = self.stage
        if run is None or not 0 < run.done < run.blocks:
            return None
        return max(0.0, (run.blocks - run.done) * (run.last - run.begun) / run.done)


def _merge(samples: Iterable[Sample]) -> Sample:
    columns = [list(column) for column in zip(*samples, strict=True)]
    means = [sum(column) / len(column) for column in columns]
    return Sample._make([columns[0][-1], *means[1:-1], max(columns[-1])])


class State:
    """All jobs that events told of, the newest last; safe to use from several threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.jobs: dict[str, Job] = {}
        self._runs: dict[str, tuple[Job, Run]] = {}

    def take(self, message: Any, when: float) -> None:
        """Note an event; one of another version, or of a job that is forgotten, changes nothing."""
        if not isinstance(message, Mapping):
            return
        event = getattr(self, f"_on_{message.get('event')}", None)
        if event is not None:
            with self.lock:
                event(message, when)

    def finish(self, label: str, number: int, seconds: float, when: float) -> None:
        """Note that a block of a run is done."""
        with self.lock:
            job, run = self._runs.get(label, (None, None))
            if job is not None and run is not None:
                job.rows += run.add(number, seconds, when)
                if run.done == run.blocks:
                    self._leave(label, "done", when)

    def sample(self, usage: Usage, when: float) -> None:
        """Note what the cluster does, for all jobs that are running."""
        with self.lock:
            for job in self.jobs.values():
                if job.status == "running":
                    job.memory = job.memory or usage.limit
                    job.add_sample(when, usage)

    def lose(self, client: str, when: float) -> None:
        """Note that a client has left: what it began does not go on."""
        with self.lock:
            for job in self.jobs.values():
                if job.client == client and job.status == "running":
                    self._close(job, "lost", when)

    def find(self, key: str = "") -> Job | None:
        """Return a job; by default, or if it is forgotten, the newest that is running, or was."""
        running = [job for job in self.jobs.values() if job.status == "running"]
        newest = next(reversed(running or list(self.jobs.values())), None)
        return self.jobs.get(key, newest)

    def _on_begin(self, message: Message, when: float) -> None:
        self._add(Job(message["job"], message["name"], message["client"], when))

    def _on_end(self, message: Message, when: float) -> None:
        if job := self.jobs.get(message["job"]):
            self._close(job, message["how"], when)

    def _on_course(self, message: Message, when: float) -> None:
        if job := self.jobs.get(message["job"]):
            job.iterations, job.monitor = message["iterations"], message["monitor"]
            job.limit, job.first = message["seconds"], when
            if message["memory"]:
                job.memory = parse_bytes(message["memory"])
            job.records, job.arrived = [dict(each) for each in message["history"]], [when]

    def _on_iteration(self, message: Message, when: float) -> None:
        if job := self.jobs.get(message["job"]):
            job.add_record(message["record"], when)

    def _on_run(self, message: Message, when: float) -> None:
        job = self.jobs.get(message["job"]) or self._loose(message, when)
        if message["blocks"] and job.status == "running":
            run = Run(message["name"], message["blocks"], message["rows"], when)
            job.add_run(run)
            self._runs[message["label"]] = job, run

    def _on_broken(self, message: Message, when: float) -> None:
        self._leave(message["label"], "failed", when)

    def _loose(self, message: Message, when: float) -> Job:
        """Return the job of runs that belong to none: those of a client in quick succession."""
        name, client = message["name"].partition("-")[0], message["client"]
        for job in reversed(self.jobs.values()):
            if job.loose and (job.client, job.name) == (client, name):
                if when - (job.ended or when) < _PAUSE:
                    job.status, job.ended = "running", None
                    return job
                break
        return self._add(Job(f"{client}-{when}", name, client, when, loose=True))

    def _add(self, job: Job) -> Job:
        self.jobs[job.key] = job
        while len(self.jobs) > MOST_JOBS:
            ended = [key for key, each in self.jobs.items() if each.ended is not None]
            oldest = self.jobs.pop([*ended, *self.jobs][0])
            self._close(oldest, "lost", job.begun)
        return job

    def _leave(self, label: str, how: str, when: float) -> None:
        """Forget a run that is over, and end a job that is no more than its runs."""
        job, _ = self._runs.pop(label, (None, None))
        if job is not None and job.loose:
            self._close(job, how, when)

    def _close(self, job: Job, how: str, when: float) -> None:
        job.status, job.ended = how, when
        for label in [label for label, (each, _) in self._runs.items() if each is job]:
            del self._runs[label]
