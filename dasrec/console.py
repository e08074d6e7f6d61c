"""What a command prints: one JSON object for machines, tables for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import click
import xarray as xr
from rich.console import Console
from rich.table import Table

from dasrec.demo import Outcome
from dasrec.interactions import Interactions
from dasrec.memory import gigabytes
from dasrec.plan import Plan


def show(record: dict[str, Any], *, as_json: bool, human: Callable[[], None]) -> None:
    """Print ``record`` as JSON, or let ``human`` print it."""
    if as_json:
        click.echo(json.dumps(record))
    else:
        human()


def show_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table; numbers with four decimals."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console().print(table)


def show_facts(title: str, record: dict[str, Any]) -> None:
    """Print a record as a table of two columns."""
    show_table(title, ["what", "value"], [[key, value] for key, value in record.items()])


def show_plan(plan: Plan, *, as_json: bool) -> None:
    """Print what a plan foresees."""
    show(plan.as_record(), as_json=as_json, human=lambda: show_facts("Plan", plan.readable()))


def show_health(record: dict[str, Any]) -> None:
    """Print what :func:`dasrec.doctor.examine` found: a line a process, versions, and faults."""
    processes = {"here": record["client"], "scheduler": record["scheduler"], **record["workers"]}
    found = {
        name.partition("://")[2] or name: each
        for name, each in processes.items()
        if each is not None
    }
    columns = ["process", "threads", "memory", "free", "BLAS", "clock"]
    tried = any("store" in each for each in found.values())
    show_table(
        "Processes",
        columns + (["write/s", "read/s"] if tried else []),
        [
            [name.partition("://")[2] or name, *_health(each, tried=tried)]
            for name, each in found.items()
        ],
    )
    versions = [
        [package, _versions([_packages(each)[package] for each in found.values()])]
        for package in _packages(record["client"])
    ]
    show_table("Versions", ["package", "version"], versions)
    click.echo("\n".join(record["faults"]) or "All is well.")


def _health(each: dict[str, Any], *, tried: bool) -> list[Any]:
    """Return the cells of a process."""
    limit, skew = each["memory_limit_bytes"], each.get("clock_skew_seconds", 0)
    threads = [str(one["threads"]) for one in each["blas"]]
    cells = [
        each["threads"],
        gigabytes(limit) if limit else "no limit",
        gigabytes(each["disk_free_bytes"]),
        "/".join(threads) or "-",
        f"{skew:+.1f} s" if skew else "right",
    ]
    speeds = ("write_bytes_per_second", "read_bytes_per_second") if tried else ()
    store = each.get("store", {})
    return cells + [gigabytes(store[key]) if key in store else "-" for key in speeds]


def _packages(each: dict[str, Any]) -> dict[str, str]:
    return {"python": each["python"], **each["versions"]}


def _versions(seen: list[str]) -> str:
    """Write a version, or how many have which."""
    if len(counts := Counter(seen)) == 1:
        return seen[0]
    return ", ".join(f"{version} ({n} of {len(seen)})" for version, n in counts.items())


def show_comparison(comparison: xr.Dataset) -> None:
    """Print what :func:`dasrec.compare` found: a table a metric."""
    facts = comparison.attrs
    columns = ["model", "mean", "low", "high", "difference", "p", "p (Holm)"]
    names = ["value", "low", "high", "difference", "p", "p_holm"]
    for metric in comparison["metric"].values:
        for n in comparison["n"].values:
            at = comparison.sel(metric=metric, n=n)
            rows = [
                [model, *(_cell(float(at[name].sel(model=model))) for name in names)]
                for model in comparison["model"].values
            ]
            show_table(f"{metric}@{n}, {facts['split']}, {facts['n_users']} users", columns, rows)


def _cell(value: float) -> float | str:
    return value if value == value else "-"


def show_audit(interactions: Interactions) -> None:
    """Print what cleaning did when a store was written."""
    audit = interactions.audit
    rows = zip(*(audit[key].values for key in ("step", "why", "rows_in", "rows_out")), strict=True)
    show_table("Cleaning", ["step", "why", "rows in", "rows out"], [list(row) for row in rows])


def show_demo(outcome: Outcome, records: list[dict[str, Any]]) -> None:
    """Print what the demo found, where everything lies and what to try next."""
    show_audit(outcome.interactions)
    shown = ["rmse", "precision@10", "recall@10", "ndcg@10", "item_coverage@10"]
    rows = [
        [each["model"], *(each[key] if each[key] == each[key] else "-" for key in shown)]
        for each in records
    ]
    show_table(
        f"{outcome.data.name}, split {outcome.evaluation.attrs['split']}", ["model", *shown], rows
    )
    for what, place in outcome.places.items():
        click.echo(f"{what + ':':<14}{place}")
    store, model = outcome.places["interactions"], outcome.places["implicit-als"]
    click.echo(
        f"\nThis took {outcome.seconds:.0f} s. Try next:\n"
        f"  dasrec info {store}\n"
        f"  dasrec evaluate {model} {store} --split time:0.2 --n 5,10\n"
        f"  dasrec ingest YOUR.csv my-store --user USER --item ITEM --timestamp TIME"
    )
