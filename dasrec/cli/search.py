"""The command that searches parameters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import click

import dasrec
from dasrec import search_report
from dasrec.cli.options import (
    MEMORY_HELP,
    WHEN_STOPPED,
    SectionCommand,
    as_json_option,
    make_model,
    overwrite_option,
    section_option,
    seed_option,
)
from dasrec.console import show, show_facts, show_table
from dasrec.errors import InputError
from dasrec.models import MODELS
from dasrec.report import write_page
from dasrec.search.space import parse_value, parse_values

_what = partial(section_option, "What is searched")
_how = partial(section_option, "How trials run")
_MOST_ROWS = 10


@click.command("search", cls=SectionCommand)
@click.argument("store")
@click.option("--model", "kind", type=click.Choice(list(MODELS)), required=True)
@_what(
    "--space",
    "spaces",
    multiple=True,
    required=True,
    metavar="NAME=VALUES",
    help="Values like 0.1,0.3,1, or loguniform:0.01:10, or uniform:0:1. May be repeated.",
)
@_what("--set", "fixed", multiple=True, metavar="NAME=VALUE", help="What stays, like factors=64.")
@_what("--split", "split_text", required=True, metavar="SPLIT", help="Validate on time:0.2, ...")
@_what("--metric", default="ndcg@10", show_default=True, help="What is to be large.")
@_how(
    "--strategy",
    default="halving",
    show_default=True,
    help="random, grid, halving or hyperband; halving:4 keeps one of 4.",
)
@_how("--budget", type=int, metavar="N", help="Iterations of all trials; a grid needs none.")
@_how("--users", type=float, metavar="SHARE", help="Search on a sample of the users, like 0.2.")
@_how("--time-limit", metavar="TIME", help="Begin no iteration past it: seconds, or 10min.")
@_how("--place", metavar="FOLDER", help="Keep records and checkpoints, to go on from.")
@_how("--memory", metavar="SIZE", help=MEMORY_HELP)
@click.option("--refit", metavar="MODEL", help="Fit the best on the whole store and save it there.")
@click.option("--report", metavar="PAGE", help="Draw a page of the trials there.")
@seed_option
@overwrite_option
@as_json_option
def search_command(
    store: str,
    kind: str,
    spaces: tuple[str, ...],
    fixed: tuple[str, ...],
    refit: str | None,
    report: str | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Search the parameters with which a model is best on a validation part.

    What Ctrl-C or a kill leaves in --place is where the same command goes on.

    \b
    Example:  dasrec search my-store --model implicit-als --split time:0.2 --budget 200 \\
                --space regularization=loguniform:0.01:10 --place my-search
    """
    place, seed = options["place"], options.pop("seed")
    model = make_model(
        kind, seed, {name: parse_value(text) for name, text in _pairs(fixed, "--set")}
    )
    space = {name: parse_values(text) for name, text in _pairs(spaces, "--space")}
    if place:
        click.get_current_context().meta[WHEN_STOPPED] = (
            f"Run the same command again to go on from {place}."
        )
    interactions = dasrec.open_interactions(store)
    # a split that is drawn anew would be another search
    split = dasrec.parse_split(interactions, options.pop("split_text"), rng=seed or 0)
    what = {name: options.pop(name) for name in ("metric", "strategy", "budget")}
    trials = dasrec.Trials(rng=seed, **options)
    found = dasrec.search(model, space=space, split=split, trials=trials, **what)
    record = _record(found)
    if refit:
        record["model"] = found.refit(interactions).save(refit, overwrite=overwrite)
    if report:
        sections = [search_report.describe_search(found.trials)]
        record["report"] = write_page(report, title=f"dasrec: search on {store}", sections=sections)
    show(record, as_json=as_json, human=lambda: _show(record))


def _pairs(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not (name and equals and values):
            msg = f"{option} is {text!r}; expected a parameter and what it may be, like factors=64"
            raise InputError(msg)
        pairs.append((name, values))
    return pairs


def _record(found: dasrec.SearchResult) -> dict[str, Any]:
    trials = found.trials
    rows = trials.to_dataframe().dropna(subset=["metric"]).reset_index()
    last = rows.groupby("trial").tail(1).drop(columns=["iteration", "is_best"])
    return {
        **trials.attrs,
        "best_params": found.best_params,
        "best_metric": found.best_metric,
        "trials": json.loads(last.to_json(orient="records")),
    }


def _show(record: dict[str, Any]) -> None:
    trials = record["trials"]
    best = sorted(trials, key=lambda row: (-row["iterations"], -row["metric"]))[:_MOST_ROWS]
    names = {name: name.removeprefix("param_") for name in trials[0] if name != "bracket"}
    rows = [[row[name] for name in names] for row in best]
    show_table(f"Best of {len(trials)} trials", list(names.values()), rows)
    plain = ("best_metric", "spent", "model", "report")
    facts = record["best_params"] | {key: record[key] for key in plain if key in record}
    show_facts("Found", facts)
    if not record["finished"]:
        click.echo("Time was up before the end; run the same command with --place to go on.")
