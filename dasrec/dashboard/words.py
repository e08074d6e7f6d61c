"""What a job looks like in words: one fragment of HTML, numbers with their units."""

from __future__ import annotations

import math
from html import escape

from dasrec.dashboard.state import Job, Run

NOTHING = (
    '<p class="empty">Nothing has run yet. What dasrec does with a client of this scheduler '
    "appears here.</p>"
)
_RECENT = 10  # samples
_DASH = "\N{EN DASH}"
_SCALES = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def describe(job: Job, now: float) -> str:
    """Return what is drawn above the figures: who, how far, and the figures of this moment."""
    return (
        f'<div class="head"><span class="status {escape(job.status)}">{escape(job.status)}</span>'
        f"<h1>{escape(job.name)}</h1></div>\n"
        f'<div class="bars">{_progress(job)}</div>\n<dl>{_tiles(job, now)}</dl>'
    )


def _progress(job: Job) -> str:
    bars = ""
    if job.iterations:
        done = int(job.records[-1]["iteration"]) if job.records else 0
        bars += _bar("Iteration", done, job.iterations)
    if (run := job.stage) is not None:
        bars += _bar(f"Stage {run.name}, block", run.done, run.blocks)
    return bars


def _bar(what: str, done: int, n: int) -> str:
    part = 100 * done / n
    return (
        f'<div class="bar"><span>{escape(what)} {done:,} of {n:,}</span>'
        f'<div class="track"><div style="width: {part:.1f}%"></div></div></div>'
    )


def _tiles(job: Job, now: float) -> str:
    last = job.samples[-1] if job.samples else None
    recent = [sample.rows for sample in job.samples[-_RECENT:]]  # blocks come one by one
    rows = number(sum(recent) / len(recent)) if recent else _DASH
    left = job.left(now)
    tiles = [
        ("Objective", *_objective(job)),
        (job.monitor or "Holdout metric", *_monitor(job)),
        ("Rows a second", rows, f"{number(job.rows)} so far"),
        ("Load balance", *_balance(job.spread)),
        ("Read", size(job.read), f"{size(last.read if last else 0)}/s"),
        ("Written", size(job.written), f"{size(last.written if last else 0)}/s"),
        ("Memory", *_memory(job)),
        ("Time left", _DASH if left is None else duration(left), _so_far(job, now)),
    ]
    return "".join(
        f'<div class="tile" id="{name}"><dt>{escape(title)}</dt><dd>{escape(value)}</dd>'
        f"<small>{escape(note)}</small></div>"
        for name, (title, value, note) in zip(_NAMES, tiles, strict=True)
    )


_NAMES = ("objective", "monitor", "rows", "balance", "read", "written", "memory", "left")


def _objective(job: Job) -> tuple[str, str]:
    found = [record["objective"] for record in job.records if "objective" in record]
    if not found:
        return _DASH, "of a fit that goes in iterations"
    if len(found) < 2 or not found[-2]:
        return f"{found[-1]:,.6g}", "first iteration"
    change = 100 * (found[-1] - found[-2]) / abs(found[-2])
    return f"{found[-1]:,.6g}", f"{change:+.2g} % an iteration".replace("-", "\N{MINUS SIGN}")


def _monitor(job: Job) -> tuple[str, str]:
    found = [
        (record["monitor"], int(record["iteration"]))
        for record in job.records
        if "monitor" in record
    ]
    if not found:
        return _DASH, "of a fit with a monitor"
    best, iteration = max(found, key=lambda each: (each[0], -each[1]))
    return f"{found[-1][0]:.4f}", f"best {best:.4f} at {iteration}"


def _balance(runs: list[Run]) -> tuple[str, str]:
    whole = [run for run in runs if run.done == run.blocks]  # of some blocks it says little
    if not runs:
        return _DASH, "slowest block / mean"
    run = (whole or runs)[-1]
    return f"{run.balance:.2f}", f"slowest / mean, {run.name}"


def _memory(job: Job) -> tuple[str, str]:
    if not job.samples:
        return _DASH, "of the largest worker"
    held = job.samples[-1].memory
    if not job.memory:
        return size(held), "of the largest worker"
    return size(held), f"{100 * held / job.memory:.0f} % of {size(job.memory)}, largest worker"


def _so_far(job: Job, now: float) -> str:
    taken = duration(job.seconds(now))
    return f"{taken} so far" if job.ended is None else f"took {taken}"


def number(value: float) -> str:
    """Write a count or a rate with three digits: 12.3 k."""
    for unit, scale in _SCALES:
        if value >= 0.9995 * scale:
            return f"{_three(value / scale)} {unit}"
    return _three(value)


def size(value: float) -> str:
    """Write bytes with three digits: 12.3 MB."""
    text = number(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"


def _three(value: float) -> str:
    if not value:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    return f"{value:.{min(digits, 2)}f}"


def duration(seconds: float) -> str:
    """Write seconds as people say them: 2 min 10 s."""
    whole = round(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
