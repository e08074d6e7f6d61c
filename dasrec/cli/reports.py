"""The command report: one page about a store, a model or what was measured."""

from __future__ import annotations

import contextlib
from typing import Any

import click
import pandas as pd

import dasrec
from dasrec import files, pages, versions
from dasrec.cli.options import as_json_option, lengths_option, split_for
from dasrec.console import show
from dasrec.errors import DasrecError, InputError
from dasrec.evaluate import evaluate_all
from dasrec.report import Section, write_page
from dasrec.results import Comparison, from_record
from dasrec.schema import INTERACTIONS_KIND


@click.command("report")
@click.argument("place", metavar="STORE|MODEL|EVALUATION")
@click.argument("out", metavar="PAGE")
@click.option("--model", "places", multiple=True, metavar="MODEL", help="Of a store; repeatable.")
@click.option("--split", "split_text", metavar="SPLIT", help="Evaluate the models on it.")
@lengths_option
@click.option("--titles", metavar="CSV", help="Table with the columns item_id and title.")
@as_json_option
def report_command(
    place: str,
    out: str,
    places: tuple[str, ...],
    split_text: str | None,
    n: tuple[int, ...],
    titles: str | None,
    as_json: bool,
) -> None:
    """Draw one self-contained HTML page.

    Of a store, and of models fitted on it; of a model, with lists and reasons if its store is
    there; or of an evaluation: the JSON that dasrec evaluate or compare print with --json, in a
    file whose name ends with .json.

    \b
    Example:  dasrec report my-store page.html --model my-model --split time:0.2
    Example:  dasrec report my-model page.html
    Example:  dasrec report figures.json page.html
    """
    known = pages.read_titles(titles) if titles else None
    if place.endswith(".json"):
        kind, sections = "evaluation", _of_evaluation(place)
    elif versions.read_pointer(place, None).kind == INTERACTIONS_KIND:
        kind, sections = "store", _of_store(place, places, split_text, n, known)
    else:
        kind, sections = "model", _of_model(place, known)
    if kind != "store" and (places or split_text):
        msg = f"--model and --split go with a store, and {place} is none; leave them out"
        raise InputError(msg)
    written = write_page(out, title=f"dasrec: {place}", sections=sections)
    record = {"report": written, "kind": kind}
    show(record, as_json=as_json, human=lambda: click.echo(written))


def _of_store(
    place: str,
    places: tuple[str, ...],
    split_text: str | None,
    n: tuple[int, ...],
    titles: pd.Series | None,
) -> list[Section]:
    interactions = dasrec.open_interactions(place)
    models = [dasrec.load_model(each) for each in places]
    evaluation = None
    if split_text and models:
        split = split_for(models[0], interactions, split_text, None)
        evaluation = evaluate_all(models, split, n=n)
    sections = pages.describe(interactions, models, evaluation)
    sections += [pages.sample_lists(model, interactions, titles=titles) for model in models]
    return sections


def _of_model(place: str, titles: pd.Series | None) -> list[Section]:
    model, seen = dasrec.load_model(place), None
    with contextlib.suppress(DasrecError):  # the store may be gone, or another by now
        found = dasrec.open_interactions(model.trained_on_["store"])
        model.check_belongs(found)
        seen = found
    return pages.describe_model(model, seen, titles=titles)


def _of_evaluation(place: str) -> list[Section]:
    try:
        record: dict[str, Any] = files.read_json(place)
    except ValueError as error:
        msg = f"{place} is not readable as JSON: {error}"
        raise InputError(msg) from error
    measured = from_record(record, where=place)
    if isinstance(measured, Comparison):
        return pages.describe_comparison(measured)
    return pages.describe_evaluation(measured, None)
