"""Commands about splits and models: split, fit, evaluate, compare, recommend."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import click

import dasrec
from dasrec import files, pages, versions
from dasrec.certainty import Test
from dasrec.cli.options import (
    MEMORY_HELP,
    WHEN_STOPPED,
    SectionCommand,
    as_json_option,
    lengths_option,
    make_model,
    overwrite_option,
    section_option,
    seed_option,
    split_for,
)
from dasrec.console import show, show_comparison, show_facts, show_table
from dasrec.errors import InputError
from dasrec.evaluate import evaluate_both
from dasrec.metrics import choose_metrics
from dasrec.models import MODELS
from dasrec.recommend import DONE
from dasrec.report import write_page
from dasrec.results import as_record, as_records

_parameter = partial(section_option, "Parameters of the model")
_control = partial(section_option, "Course of the fit", default=None)

_CONTROLS = (
    "memory",
    "time_limit",
    "log",
    "monitor",
    "patience",
    "checkpoint",
    "checkpoint_every",
    "resume",
)


@click.command("split")
@click.argument("store")
@click.argument("split_text", metavar="SPLIT")
@seed_option
@as_json_option
@click.pass_context
def split_command(
    ctx: click.Context, store: str, split_text: str, seed: int | None, as_json: bool
) -> None:
    """Say what a split tests and what training knows of it; exit status 1 if parts overlap.

    \b
    SPLIT is time:0.2, time:2026-01-31, random:0.2, last:1, any:1, users:0.1, fold:1/5,
    rolling:1/4:7D, or two with a comma between them: test and validation.
    \b
    Example:  dasrec split my-store time:0.2,last:1
    """
    checked = dasrec.check_split(
        dasrec.parse_split(dasrec.open_interactions(store), split_text, rng=seed)
    )
    table = checked.to_dataframe()
    for name in ("newest_train", "oldest_test"):
        table[name] = table[name].dt.strftime("%FT%T")
    parts = table.astype(object).where(table.notna(), None).T
    rows = [[name, *row] for name, row in zip(parts.index, parts.values.tolist(), strict=True)]
    show(
        {**checked.attrs, "parts": parts.to_dict()},
        as_json=as_json,
        human=lambda: show_table(checked.attrs["split"], ["what", *parts], rows),
    )
    if checked["overlap"].any():
        ctx.exit(1)


@click.command("fit", cls=SectionCommand)
@click.argument("store")
@click.argument("model_place", metavar="MODEL")
@click.option("--model", "kind", type=click.Choice(list(MODELS)), required=True)
@_parameter("--factors", type=int, metavar="K", help="Length of the latent vectors.")
@_parameter("--iterations", type=int, metavar="N", help="Sweeps over both sides, or epochs.")
@_parameter("--regularization", type=float, help="Strength of the regularisation.")
@_parameter("--unobserved-weight", type=float, help="Weight of cells that nobody has used.")
@_parameter(
    "--solver", help="How rows are solved: auto, exact, cg (conjugate gradients), subspace."
)
@_parameter("--tolerance", type=float, help="How far from their best cg may leave rows.")
@_parameter("--nonnegative", is_flag=True, default=None, help="Factors are at least 0.")
@_parameter("--user-features", is_flag=True, default=None, help="Learn from those of users.")
@_parameter("--item-features", is_flag=True, default=None, help="Learn from those of items.")
@_parameter("--feature-regularization", type=float, help="Strength for what features weigh.")
@_parameter("--learning-rate", type=float, help="Length of the first steps of gradient descent.")
@_parameter("--schedule", help="Of the learning rate: constant, inverse, or bold.")
@_parameter("--decay", type=float, help="How fast the inverse schedule falls.")
@_parameter("--optimizer", help="Of gradients: sgd, momentum, adagrad, or adam.")
@_parameter("--batch-size", type=int, metavar="N", help="Cells whose gradients are added up.")
@_parameter("--time-bins", type=int, metavar="N", help="Of sgd: biases move in time.")
@_parameter("--negatives", help="How items not seen are drawn: uniform, popular, or hard.")
@_parameter("--samples", type=int, metavar="N", help="So many of them for a cell.")
@_control("--memory", metavar="SIZE", help=MEMORY_HELP)
@_control("--time-limit", metavar="TIME", help="Begin no iteration past it: seconds, or 10min.")
@_control("--log", metavar="FILE", help="Append each iteration as a line of JSON.")
@_control("--monitor", metavar="METRIC", help="Measure on --split as it goes, like ndcg@10.")
@_control("--patience", type=int, metavar="N", help="Stop after N iterations without a better one.")
@_control("--checkpoint", metavar="PLACE", help="Save the model there after each iteration.")
@_control("--checkpoint-every", metavar="TIME", help="Let so much time pass between two saves.")
@_control("--resume", is_flag=True, help="Go on from the checkpoint, if one is there.")
@click.option(
    "--split", "split_text", metavar="SPLIT", help="Train on its first part: time:0.2, last:1, ..."
)
@seed_option
@overwrite_option
@as_json_option
def fit_command(
    store: str,
    model_place: str,
    kind: str,
    split_text: str | None,
    seed: int | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit a model on a store, or on the training part of a split of it, and save it.

    With a validation part, as in time:0.2,last:1, it is what --monitor measures on; neither it nor
    the test part is trained on.

    \b
    Example:  dasrec fit my-store my-model --model implicit-als --factors 64 --split time:0.2
    """
    given = {name: value for name, value in options.items() if value is not None}
    controls = {name: given.pop(name) for name in _CONTROLS if name in given}
    model = make_model(kind, seed, given)
    _check_controls(model, controls, model_place, split_text)
    interactions = dasrec.open_interactions(store)
    split = None
    if split_text:
        split = split_for(_before(controls), interactions, split_text, seed)
        split = split.validation or split
        interactions = split.train
    if "monitor" in controls and split is not None:
        controls["monitor"] = dasrec.holdout(split, controls["monitor"])
    if "checkpoint" in controls:
        click.get_current_context().meta[WHEN_STOPPED] = (
            f"Run the same command with --resume to go on from {controls['checkpoint']}."
        )
    model.fit(interactions, training=dasrec.Training(**controls))
    saved = model.save(model_place, overwrite=overwrite)
    record = {"model": kind, "place": saved, "parameters": model.get_params(), "split": split_text}
    for name in ("objective", "monitor"):
        if name in getattr(model, "history_", ()):
            record[name] = [float(value) for value in model.history_[name].values]
    show(record, as_json=as_json, human=lambda: show_facts(f"Fitted {kind}", record))


def _check_controls(
    model: dasrec.Model, controls: dict[str, Any], place: str, split: str | None
) -> None:
    """Refuse what goes with no such model, or not together, in the words of the command line."""
    options = ", ".join(f"--{name.replace('_', '-')}" for name in controls)
    if controls and not model.stepwise:
        msg = f"{model.name} is not fitted step by step; leave out {options}"
        raise InputError(msg)
    present = {*controls, "split"} if split else {*controls}
    for name, needed, example in (
        ("monitor", "split", "time:0.2"),
        ("patience", "monitor", "ndcg@10"),
        ("checkpoint_every", "checkpoint", "my-checkpoint"),
        ("resume", "checkpoint", "my-checkpoint"),
    ):
        if name in controls and needed not in present:
            option = name.replace("_", "-")
            msg = f"--{option} is given without --{needed}; expected both, as --{needed} {example}"
            raise InputError(msg)
    if "monitor" in controls:
        choose_metrics(
            [controls["monitor"].partition("@")[0]], predicts_values=model.predicts_values
        )
    if "checkpoint" in controls and files.absolute(controls["checkpoint"]) == files.absolute(place):
        msg = f"--checkpoint is the place of the model, {place}; choose another"
        raise InputError(msg)
    for name in ("time_limit", "checkpoint_every"):
        if name in controls:
            controls[name] = _time(controls[name])


def _time(text: str) -> float | str:
    """Return seconds, if no unit is given."""
    try:
        return float(text)
    except ValueError:
        return text


def _before(controls: dict[str, Any]) -> dasrec.Model | None:
    """Return what a fit goes on from, since its split is to be made again."""
    place = controls.get("checkpoint", "")
    is_there = "resume" in controls and versions.list_versions(files.absolute(place))
    return dasrec.load_model(place) if is_there else None


def _names(ctx: click.Context, param: click.Parameter, given: tuple[str, ...]) -> list[str] | None:
    del ctx, param
    return ",".join(given).split(",") if given else None


_metrics_option = click.option(
    "--metrics",
    "--metric",
    "metrics",
    multiple=True,
    callback=_names,
    metavar="NAMES",
    help="Only these, like recall,auc; may be repeated.",
)
_html_option = click.option("--html", metavar="PAGE", help="Draw one HTML page, with intervals.")


@click.command("evaluate")
@click.argument("place", metavar="MODEL")
@click.argument("store")
@click.option(
    "--split", "split_text", required=True, metavar="SPLIT", help="time:0.2, random:0.2, ..."
)
@lengths_option
@_metrics_option
@click.option("--compat", metavar="LIBRARY", help="Whose formulas: implicit, lenskit, ...")
@click.option("--allow-overlap", is_flag=True, help="Even if the model may know what is tested.")
@_html_option
@click.option("--user-groups", metavar="CSV", help="Tell users apart: columns user_id and group.")
@click.option("--item-groups", metavar="CSV", help="Items likewise; or the word popularity.")
@click.option("--sampled", type=int, metavar="N", help="Rank among N other items only: biased.")
@seed_option
@as_json_option
def evaluate_command(
    place: str,
    store: str,
    split_text: str,
    n: tuple[int, ...],
    metrics: list[str] | None,
    compat: str | None,
    allow_overlap: bool,
    html: str | None,
    user_groups: str | None,
    item_groups: str | None,
    sampled: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Measure a model, or a folder of lists, on the test part of the split that it was made on.

    \b
    Example:  dasrec evaluate my-model my-store --split time:0.2 --n 10,20 --json
    """
    interactions = dasrec.open_interactions(store)
    is_lists = files.exists(files.join(files.absolute(place), DONE))
    model = None if is_lists else dasrec.load_model(place)
    if model is not None:
        model.check_belongs(interactions)
    given = place if model is None else model
    ranked = given if sampled is None else dasrec.Sampled(given, sampled, seed or 0)
    split = split_for(model, interactions, split_text, seed)
    groups = pages.read_groups(interactions, user_groups, item_groups)
    options: dict[str, Any] = {"n": n, "compat": compat, "allow_overlap": allow_overlap}
    options["groups"] = groups
    if html is None:
        measured = dasrec.evaluate(ranked, split, metrics=metrics, **options)
    else:
        measured, values = evaluate_both(ranked, split, metrics=metrics, **options)
        certainty = dasrec.intervals(values, rng=seed or 0) if values.data_vars else None
        sections = pages.describe_evaluation(measured, certainty)
        write_page(html, title=f"dasrec: {measured.attrs['model']}", sections=sections)
    record = as_record(measured)
    title = f"{record['model']}, {record['split']}, {record['n_users']} users"
    show(record, as_json=as_json, human=lambda: show_facts(title, record["metrics"]))


@click.command("compare")
@click.argument("store")
@click.argument("places", metavar="MODEL MODEL...", nargs=-1, required=True)
@click.option("--split", "split_text", required=True, metavar="SPLIT", help="As all were fitted.")
@lengths_option
@_metrics_option
@click.option(
    "--test", type=click.Choice(get_args(Test)), default="randomisation", show_default=True
)
@click.option("--level", type=float, default=0.95, show_default=True, help="Of the intervals.")
@_html_option
@seed_option
@as_json_option
def compare_command(
    store: str,
    places: tuple[str, ...],
    split_text: str,
    html: str | None,
    seed: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure models on one split, and tell which differ from the first by more than chance.

    \b
    Example:  dasrec compare my-store my-model other-model --split time:0.2 --html page.html
    """
    interactions = dasrec.open_interactions(store)
    models = {place: dasrec.load_model(place) for place in places}
    for model in models.values():
        model.check_belongs(interactions)
    split = split_for(models[places[0]], interactions, split_text, seed)
    compared = dasrec.compare(models, split, rng=seed or 0, **options)
    if html is not None:
        sections = pages.describe_comparison(compared)
        write_page(html, title=f"dasrec: {split.spec} of {store}", sections=sections)
    show(as_records(compared), as_json=as_json, human=lambda: show_comparison(compared))


@click.command("recommend")
@click.argument("model_place", metavar="MODEL")
@click.argument("store")
@click.argument("out")
@click.option("--n", type=int, default=10, show_default=True, help="Length of each list.")
@overwrite_option
@as_json_option
def recommend_command(
    model_place: str,
    store: str,
    out: str,
    n: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the best items of every user, without what the store knows of them, to Parquet.

    \b
    Example:  dasrec recommend my-model my-store lists --n 10
    """
    model, seen = dasrec.load_model(model_place), dasrec.open_interactions(store)
    place = dasrec.recommend_all(model, seen, n=n, out=out, overwrite=overwrite)
    record = {"lists": place, "n": n, "n_users": seen.n_users}
    show(record, as_json=as_json, human=lambda: show_facts("Recommended", record))
