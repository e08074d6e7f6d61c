"""What the benchmarks share: one job at a time in a process of its own, its memory, its medians.

A job is a function of a benchmark file that takes JSON-able keyword arguments and returns a dict
with ``seconds``. :func:`run` runs it in a fresh process, so that no job warms the caches or keeps
the memory of another, and samples the memory of that process with all its children.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SAMPLE_SECONDS = 0.02
_LOOK_FOR_CHILDREN = 10  # samples: to list processes costs more than to ask a few for their memory
_ANSWER = "benchmark-answer:"

GROUP_ROWS = 10**6
START, YEAR = 1_700_000_000_000, 365 * 86_400_000  # of a simulated log, in milliseconds
REPEATED = 0.05


@dataclass(frozen=True)
class Outcome:
    """What one run of a job gave.

    Attributes
    ----------
    seconds, cpu_seconds : float
        Wall and processor time as the job itself measured them with :func:`timed`, without imports
        and setting up. Where the machine has other work to do, trust the second more.
    peak_bytes : int
        Most resident memory (RSS) that the process and its children held together at any sample,
        from start to exit. Pages that processes share count once for each, so several processes
        look a little worse than they are.
    answer : dict
        All that the job returned.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    answer: dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A figure that was measured beside what it should be."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        verdict = "PASS" if self.passed else "FAIL"
        return f"{verdict}  {self.name}: {self.value:.2f} (target {sign} {self.limit:g})"


EAGERLY = {"EAGER_IMPORT": "1"}
"""Lets ``import dasrec`` import all, so that no job is timed while it imports."""


def run(
    job: Callable[..., dict[str, Any]],
    *,
    cores: int,
    python: str = sys.executable,
    **arguments: Any,
) -> Outcome:
    """Run a job in a fresh process that may use ``cores`` cores, and watch its memory.

    ``python`` is for peers that cannot live in one environment with dasrec.

    Raises
    ------
    RuntimeError
        The job failed; the message holds the end of what it printed.
    """
    where = Path(sys.modules[job.__module__].__file__ or "").resolve()
    call = json.dumps({"file": str(where), "job": job.__name__, "cores": cores, **arguments})
    os.sync()  # what the job before left to be written must not slow this one
    with subprocess.Popen(
        [python, __file__, call],
        env=os.environ | EAGERLY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        with watched(process.pid) as peak:
            said, _ = process.communicate()
    lines = [line for line in said.splitlines() if line.startswith(_ANSWER)]
    if process.returncode or not lines:
        msg = f"{job.__name__} failed with status {process.returncode}:\n{said[-4000:]}"
        raise RuntimeError(msg)
    answer = json.loads(lines[-1].removeprefix(_ANSWER))
    wall, cpu = answer.pop("seconds", math.nan), answer.pop("cpu_seconds", math.nan)
    return Outcome(wall, cpu, peak.bytes, answer)


@dataclass
class Peak:
    """The most that was seen."""

    bytes: int = 0


@contextlib.contextmanager
def watched(pid: int) -> Iterator[Peak]:
    """Sample the memory of a process and its children, in a thread, while the body runs."""
    peak, done = Peak(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(pid, peak, done), daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _watch(pid: int, peak: Peak, done: threading.Event) -> None:
    tree: list[psutil.Process] = []
    sample = 0
    while not done.wait(SAMPLE_SECONDS):
        if sample % _LOOK_FOR_CHILDREN == 0:
            tree = _tree(pid)
        sample += 1
        peak.bytes = max(peak.bytes, _resident(tree))


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _resident(tree: Sequence[psutil.Process]) -> int:
    total = 0
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            total += process.memory_info().rss
    return total


def _cpu_seconds(tree: Sequence[psutil.Process]) -> float:
    spent = [process.cpu_times() for process in tree]
    return sum(each.user + each.system for each in spent)


def _busy_seconds() -> float:
    """Return the processor time that the whole machine has spent on anything."""
    spent = psutil.cpu_times()
    return sum(spent) - spent.idle - getattr(spent, "iowait", 0.0) - getattr(spent, "guest", 0.0)


@contextlib.contextmanager
def timed() -> Iterator[dict[str, Any]]:
    """Time the body of a job, which ends before its children do.

    Yields
    ------
    dict
        What the job is to return: ``seconds``, ``cpu_seconds``; ``start_bytes``, which the process
        and its children held before: interpreter, libraries and idle workers; and ``noise``, the
        cores that everything else on the machine kept busy meanwhile.
    """
    tree = _tree(os.getpid())
    answer: dict[str, Any] = {"start_bytes": _resident(tree)}
    busy, cpu, start = _busy_seconds(), _cpu_seconds(tree), time.perf_counter()
    yield answer
    answer["seconds"] = time.perf_counter() - start
    answer["cpu_seconds"] = _cpu_seconds(tree) - cpu
    others = _busy_seconds() - busy - answer["cpu_seconds"]
    answer["noise"] = max(0.0, others / answer["seconds"])


@dataclass
class Rounds:
    """Outcomes by name of the job, one a round; compared in pairs within a round."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)

    def median(self, key: str, name: str) -> float:
        """Return the median over rounds of ``key``, a field of :class:`Outcome`, of one job."""
        return statistics.median(getattr(each, key) for each in self.outcomes[name])

    def ratio(self, key: str, name: str, other: str) -> float:
        """Return the median over rounds of ``key`` of one job by that of another."""
        pairs = zip(self.outcomes[name], self.outcomes[other], strict=True)
        return statistics.median(getattr(one, key) / getattr(two, key) for one, two in pairs)


def alternate(
    jobs: Mapping[str, Callable[[], Outcome]], *, repeats: int, may_fail: Collection[str] = ()
) -> Rounds:
    """Run all jobs one after the other, ``repeats`` times over, each round the other way round.

    What else the machine does then falls on all alike, and so does going first. A job that fails
    and may is told and left out, since others may have taken hours.
    """
    rounds = Rounds({name: [] for name in jobs})
    for number in range(repeats):
        order = list(rounds.outcomes) if number % 2 == 0 else list(rounds.outcomes)[::-1]
        for name in order:
            say(f"round {number + 1} of {repeats}: {name}")
            try:
                rounds.outcomes[name].append(jobs[name]())
            except RuntimeError as error:
                if name not in may_fail:
                    raise
                say(str(error))
                del rounds.outcomes[name]
    return rounds


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay out rows as text: the first column to the left, the others to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[j]) for row in cells) for j in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if j else cell.ljust(width)
            for j, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def machine(*packages: str) -> str:
    """Say in one line what this ran on."""
    found = []
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    memory = psutil.virtual_memory().total / 2**30
    system = f"Python {platform.python_version()}, {platform.system()}"
    return f"{available_cores()} cores, {memory:.0f} GiB, {system}; {', '.join(found)}"


def available_cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def count(text: str) -> int:
    """Read a number like ``300k``, ``10M`` or ``1G``."""
    factor = {"k": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    return round(float(text.rstrip("kMG")) * factor)


def short(number: float) -> str:
    """Write a number as :func:`count` reads it."""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= factor:
            return f"{number / factor:g}{letter}"
    return f"{number:g}"


def parse(parser: argparse.ArgumentParser, *, repeats: int) -> argparse.Namespace:
    """Add what every comparison can be asked for, parse the command line, and make the cache."""
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds; medians are shown")
    parser.add_argument("--workers", type=int, default=2, help="cores, threads and processes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, help="folder for logs; by default a temporary one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is missed")
    options = parser.parse_args()
    options.cache = options.cache or Path(tempfile.gettempdir()) / "dasrec-benchmarks"
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def say(line: str) -> None:
    """Tell on standard error what comes next, so that standard output holds results alone."""
    print(line, file=sys.stderr, flush=True)


def simulated_log(cache: Path, *, n: int, seed: int, strings: bool = False) -> str:
    """Return the path of a log of ``n`` events, which is made if ``cache`` does not have it."""
    kind = "strings" if strings else "integers"
    path = cache / f"log-{short(n)}-{kind}-seed{seed}.parquet"
    if not path.exists():
        say(f"making {path}")
        cache.mkdir(parents=True, exist_ok=True)
        run(make_log, cores=1, path=str(path), n=n, seed=seed, strings=strings)
    return str(path)


def make_log(path: str, *, n: int, seed: int, strings: bool) -> dict[str, Any]:
    """Write a log of ``n`` events of n/100 users and n/1000 items, one row group at a time.

    A part depends on the arguments and its number alone. Every event is a visit of its user, and a
    user's visits walk evenly over the catalogue, so that pairs repeat by plan and hardly by chance.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    users = np.rint(np.append(0.0, _shares(n // 100, 0.8)) * n).astype(np.int64)
    items = _shares(n // 1000, 1.0)
    kind = pa.string() if strings else pa.int64()
    fields = {"user": kind, "item": kind, "rating": pa.float32(), "timestamp": pa.int64()}
    draft = Path(f"{path}.partial")
    with pq.ParquetWriter(draft, pa.schema(fields), use_dictionary=["rating"]) as writer:
        for number in range(-(-n // GROUP_ROWS)):
            part = _part(number, n, seed, users, items)
            if strings:
                for side in ("user", "item"):
                    part[side] = np.char.add(side[0], part[side].astype(str))
            writer.write_table(pa.table(part, schema=pa.schema(fields)), row_group_size=GROUP_ROWS)
    draft.replace(path)
    return {}


def _shares(n: int, exponent: float) -> np.ndarray:
    weights = (np.arange(n) + 0.01 * n) ** -exponent
    return np.cumsum(weights / weights.sum())


def _part(number: int, n: int, seed: int, users: np.ndarray, items: np.ndarray) -> dict[str, Any]:
    draw = np.random.default_rng([seed, number])
    start, stop = number * GROUP_ROWS, min(n, (number + 1) * GROUP_ROWS)
    event = draw.permutation(np.arange(start, stop))
    again = draw.random(event.size) < REPEATED
    event[again] = draw.integers(0, stop, again.sum())
    # a step prime to n makes each slot, one visit of one user, occur once
    step = next(each for each in range(int(0.618034 * n), n) if math.gcd(each, n) == 1)
    slot = event * step % n
    user = np.searchsorted(users, slot, side="right") - 1
    visit = (slot - users[user] + 0.5) / np.diff(users)[user]
    item = np.searchsorted(items, (visit + 0.618034 * user) % 1, side="right")
    elapsed = (np.arange(start, stop) + draw.random(event.size)) / n
    return {
        "user": _id(user, 0),
        "item": _id(np.minimum(item, items.size - 1), 1 << 40),
        "rating": draw.choice(
            np.arange(1, 6, dtype=np.float32), event.size, p=(0.06, 0.11, 0.27, 0.34, 0.22)
        ),
        "timestamp": START + (elapsed * YEAR).astype(np.int64),
    }


def _id(number: np.ndarray, salt: int) -> np.ndarray:
    """Turn numbers into ids of 44 bits in no order: the finaliser of SplitMix64."""
    state = (number + salt).astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return (state >> np.uint64(20)).astype(np.int64)


@contextlib.contextmanager
def cluster(spec: Any) -> Iterator[None]:
    """Start what the body runs on; workers import the libraries now, as threads have done."""
    from dasrec.cluster import connect

    with connect(spec) as client:
        if client is not None:
            client.run(importlib.import_module, "dasrec")
        yield


Curves = Mapping[str, Sequence[tuple[float, float]]]


def plot(path: Path, curves: Curves, x: str, y: str, *, from_zero: bool = False) -> None:
    """Draw lines through points as an SVG of 640 by 400, as :func:`panel` says."""
    _write(path, 640, panel(curves, x, y, from_zero=from_zero))


def plot_beside(path: Path, *panels: str) -> None:
    """Draw panels side by side as an SVG of 640 by 400 each."""
    moved = [f'<g transform="translate({640 * i})">{each}</g>' for i, each in enumerate(panels)]
    _write(path, 640 * len(panels), "".join(moved))


def _write(path: Path, width: int, shapes: str) -> None:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 400"'
    path.write_text(f'{head} font-family="sans-serif" font-size="12">{shapes}</svg>\n')


def panel(curves: Curves, x: str, y: str, *, from_zero: bool = False, names: int = 40) -> str:
    """Return lines through points, 640 by 400, without the highest tenth of their span.

    ``x`` and ``y`` say what the axes show; the ends of the axes bear their values. All points are
    drawn, above 0, if ``from_zero`` is true. Names of curves stand below a height.
    """
    points = np.array([point for curve in curves.values() for point in curve])
    right, (low, high) = points[:, 0].max(), np.quantile(points[:, 1], (0, 0.9))
    if from_zero:
        low, high = 0.0, points[:, 1].max()
    shapes = ['<path d="M70 20V350H620" fill="none" stroke="#888"/>']

    def write(at: tuple[float, float], anchor: str, text: str, colour: str = "#444") -> None:
        shapes.append(
            f'<text x="{at[0]}" y="{at[1]}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
        )

    for where, text in (((70, 368), "0"), ((620, 368), f"{right:.3g}"), ((345, 388), x)):
        write(where, "middle", text)
    for where, text in (((64, 354), f"{low:,.4g}"), ((64, 26), f"{high:,.4g}")):
        write(where, "end", text)
    write((70, 12), "start", y)
    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
    for number, (name, curve) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        places = " ".join(
            f"{70 + 550 * at / right:.1f},{350 - 330 * (value - low) / ((high - low) or 1):.1f}"
            for at, value in curve
            if value <= high
        )
        shapes.append(f'<polyline points="{places}" fill="none" stroke="{colour}"/>')
        write((610, names + 16 * number), "end", name, colour)
    return "".join(shapes)


def _main(call: str) -> None:
    arguments = json.loads(call)
    path, job, cores = Path(arguments.pop("file")), arguments.pop("job"), arguments.pop("cores")
    if hasattr(os, "sched_setaffinity"):  # before any library counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    answer = getattr(importlib.import_module(path.stem), job)(**arguments)
    print(f"\n{_ANSWER}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
