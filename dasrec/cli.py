"""The command line: thin over the public functions, no logic of its own."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click
import pandas as pd

import dasrec
from dasrec import cluster, demo, pages
from dasrec.console import show, show_audit, show_demo, show_facts
from dasrec.errors import DasrecError, InputError, StoreError
from dasrec.evaluate import as_record, evaluate_all
from dasrec.models import MODELS
from dasrec.report import write_page

STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


class _Group(click.Group):
    """Turns errors that dasrec raises on purpose into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (DasrecError, OSError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Stopped; nothing half-written is in use.", err=True)
            ctx.exit(STOPPED)


@click.group("rec", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(dasrec.__version__, prog_name="dasrec")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens to standard error.")
@click.option(
    "--cluster",
    "spec",
    default="threads",
    show_default=True,
    metavar="SPEC",
    help="Where to run: threads, processes:N, or a scheduler's address (tcp://host:8786).",
)
@click.pass_context
def main(ctx: click.Context, verbose: bool, spec: str) -> None:
    """Recommendations from interaction logs that do not fit in memory.

    \b
    Begin with:  dasrec demo
    """
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    ctx.obj = spec
    if ctx.invoked_subcommand not in ("doctor", None) and "--help" not in sys.argv:
        ctx.with_resource(cluster.connect(spec))


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_overwrite = click.option("--overwrite", is_flag=True, help="Replace what is there already.")
_seed = click.option("--seed", type=int, help="Seed of everything random.")


@main.command("demo")
@click.option(
    "--folder", default="demo-output", show_default=True, help="Where everything is written."
)
@click.option("--simulated", is_flag=True, help="Simulate a log even if MovieLens can be had.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@_json
def demo_command(folder: str, simulated: bool, seed: int, as_json: bool) -> None:
    """Run the whole way on MovieLens 100K, or on a simulated log when offline.

    \b
    Example:  dasrec demo --folder demo-output
    """
    outcome = demo.run_demo(
        folder, simulated=simulated, rng=seed, say=lambda line: click.echo(line, err=True)
    )
    records = [
        {"model": str(name), **as_record(outcome.evaluation.sel(model=name, drop=True))["metrics"]}
        for name in outcome.evaluation["model"].values
    ]
    record = {
        "data": outcome.data.name,
        "simulated": outcome.data.simulated,
        "metrics": [{key: v for key, v in each.items() if v == v} for each in records],
        "places": outcome.places,
        "seconds": round(outcome.seconds, 1),
    }
    show(record, as_json=as_json, human=lambda: show_demo(outcome, records))


@main.command("ingest")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.argument("store")
@click.option("--user", required=True, metavar="COL", help="Column with the user's id.")
@click.option("--item", required=True, metavar="COL", help="Column with the item's id.")
@click.option("--value", metavar="COL", help="Column with the rating or weight; 1 without it.")
@click.option("--timestamp", metavar="COL", help="Column with the time.")
@click.option(
    "--timestamp-unit",
    type=click.Choice(["s", "ms", "us", "ns"]),
    default="s",
    show_default=True,
    help="What numeric timestamps count since 1970.",
)
@click.option(
    "--ids", type=click.Choice(["auto", "int64", "string"]), default="auto", show_default=True
)
@click.option("--min-user", type=int, default=1, show_default=True, help="Least cells of a user.")
@click.option("--min-item", type=int, default=1, show_default=True, help="Least cells of an item.")
@click.option(
    "--dedupe",
    type=click.Choice(["last", "first", "sum", "max", "mean", "error"]),
    default="last",
    show_default=True,
    help="What to keep of several events of one user with one item.",
)
@click.option(
    "--bad-rows",
    type=click.Choice(["error", "drop"]),
    default="error",
    show_default=True,
    help="What to do with rows that cannot be read.",
)
@_overwrite
@_json
def ingest_command(
    inputs: tuple[str, ...],
    store: str,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Read logs, clean them and write an interaction store.

    \b
    Example:  dasrec ingest ratings.csv my-store --user userId --item movieId \\
                --value rating --timestamp timestamp
    """
    columns = ("user", "item", "value", "timestamp", "ids", "timestamp_unit")
    events = dasrec.read_events(list(inputs), **{key: options.pop(key) for key in columns})
    events = dasrec.clean(events, **options)
    interactions = dasrec.write_interactions(events, store, overwrite=overwrite)

    def human() -> None:
        show_audit(interactions)
        click.echo(repr(interactions))

    show(_store_record(interactions), as_json=as_json, human=human)


def _store_record(interactions: dasrec.Interactions) -> dict[str, Any]:
    audit = interactions.audit.to_dataframe().reset_index()
    return {
        "store": interactions.url,
        "n_users": interactions.n_users,
        "n_items": interactions.n_items,
        "n_interactions": interactions.n_stored,
        "has_timestamps": interactions.has_timestamps,
        "audit": audit.to_dict("records"),
    }


@main.command("info")
@click.argument("place", metavar="STORE|MODEL")
@_json
def info_command(place: str, as_json: bool) -> None:
    """Say what a store or a saved model holds.

    \b
    Example:  dasrec info my-store
    """
    try:
        record = _store_record(dasrec.open_interactions(place))
    except StoreError as error:
        if "expected 'interactions'" not in str(error):
            raise
        model = dasrec.load_model(place)
        record = {
            "model": model.name,
            "parameters": model.get_params(),
            "trained_on": model.trained_on_,
            "n_users": len(model.user_ids_),
            "n_items": len(model.item_ids_),
        }

    def human() -> None:
        show_facts(place, {key: value for key, value in record.items() if key != "audit"})
        if "audit" in record:
            show_audit(dasrec.open_interactions(place))

    show(record, as_json=as_json, human=human)


@main.command("fit")
@click.argument("store")
@click.argument("model_place", metavar="MODEL")
@click.option("--model", "kind", type=click.Choice(list(MODELS)), required=True)
@click.option("--factors", type=int, metavar="K", help="Length of the latent vectors.")
@click.option("--iterations", type=int, metavar="N", help="Sweeps over both sides.")
@click.option("--regularization", type=float, help="Strength of the regularisation.")
@click.option("--unobserved-weight", type=float, help="Weight of cells that nobody has used.")
@click.option(
    "--split", "split_text", metavar="SPLIT", help="Train on its first part: time:0.2, ..."
)
@_seed
@_overwrite
@_json
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

    \b
    Example:  dasrec fit my-store my-model --model implicit-als --factors 64 --split time:0.2
    """
    model = _make_model(kind, seed, {k: v for k, v in options.items() if v is not None})
    interactions = dasrec.open_interactions(store)
    if split_text:
        interactions = dasrec.parse_split(interactions, split_text, rng=seed).train
    model.fit(interactions)
    saved = model.save(model_place, overwrite=overwrite)
    record = {"model": kind, "place": saved, "parameters": model.get_params(), "split": split_text}
    if hasattr(model, "history_"):
        record["objective"] = [float(value) for value in model.history_["objective"].values]
    show(record, as_json=as_json, human=lambda: show_facts(f"Fitted {kind}", record))


def _make_model(kind: str, seed: int | None, given: dict[str, Any]) -> dasrec.Model:
    known = MODELS[kind]().get_params()
    for name in given:
        if name not in known:
            msg = f"{kind} has no {name}; it has: {', '.join(known) or 'no parameters'}"
            raise InputError(msg)
    return MODELS[kind](**given, **({"rng": seed} if "rng" in known else {}))


def _split_for(
    model: dasrec.Model, interactions: dasrec.Interactions, text: str, seed: int | None
) -> dasrec.Split:
    """Make the split; a random one by the seed that the model was fitted with, unless told."""
    seeds = [mask["seed"] for mask in model.trained_on_["masks"] if "seed" in mask]
    return dasrec.parse_split(
        interactions, text, rng=seed if seed is not None or not seeds else seeds[0]
    )


def _lengths(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    del ctx, param
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        msg = f"{value!r} is no list of whole numbers; expected for instance 10,20"
        raise click.BadParameter(msg) from error


_n = click.option(
    "--n", default="10", show_default=True, callback=_lengths, help="List lengths, like 10,20."
)


@main.command("evaluate")
@click.argument("model_place", metavar="MODEL")
@click.argument("store")
@click.option(
    "--split", "split_text", required=True, metavar="SPLIT", help="time:0.2, random:0.2, ..."
)
@_n
@click.option("--metric", "metrics", multiple=True, help="Only this one; may be repeated.")
@click.option("--allow-overlap", is_flag=True, help="Even if the model may know what is tested.")
@_seed
@_json
def evaluate_command(
    model_place: str,
    store: str,
    split_text: str,
    n: tuple[int, ...],
    metrics: tuple[str, ...],
    allow_overlap: bool,
    seed: int | None,
    as_json: bool,
) -> None:
    """Measure a model on the test part of the split that it was fitted on.

    \b
    Example:  dasrec evaluate my-model my-store --split time:0.2 --n 10,20 --json
    """
    model = dasrec.load_model(model_place)
    interactions = dasrec.open_interactions(store)
    model.check_belongs(interactions)
    measured = dasrec.evaluate(
        model,
        _split_for(model, interactions, split_text, seed),
        n=n,
        metrics=metrics or None,
        allow_overlap=allow_overlap,
    )
    record = as_record(measured)
    title = f"{record['model']}, {record['split']}, {record['n_users']} users"
    show(record, as_json=as_json, human=lambda: show_facts(title, record["metrics"]))


@main.command("recommend")
@click.argument("model_place", metavar="MODEL")
@click.argument("store")
@click.argument("out")
@click.option("--n", type=int, default=10, show_default=True, help="Length of each list.")
@_overwrite
@_json
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


@main.command("report")
@click.argument("store")
@click.argument("out")
@click.option("--model", "places", multiple=True, metavar="MODEL", help="May be repeated.")
@click.option("--split", "split_text", metavar="SPLIT", help="Evaluate the models on it.")
@_n
@click.option("--titles", metavar="CSV", help="Table with the columns item_id and title.")
@_json
def report_command(
    store: str,
    out: str,
    places: tuple[str, ...],
    split_text: str | None,
    n: tuple[int, ...],
    titles: str | None,
    as_json: bool,
) -> None:
    """Draw one self-contained HTML page about a store and models fitted on it.

    \b
    Example:  dasrec report my-store page.html --model my-model --split time:0.2
    """
    interactions = dasrec.open_interactions(store)
    models = [dasrec.load_model(place) for place in places]
    evaluation = None
    if split_text and models:
        split = _split_for(models[0], interactions, split_text, None)
        evaluation = evaluate_all(models, split, n=n)
    sections = pages.describe(interactions, models, evaluation)
    known = pd.read_csv(titles).set_index("item_id")["title"] if titles else None
    sections += [pages.sample_lists(model, interactions, titles=known) for model in models]
    place = write_page(out, title=f"dasrec: {store}", sections=sections)
    show({"report": place}, as_json=as_json, human=lambda: click.echo(place))


@main.command("doctor")
@_json
@click.pass_context
def doctor_command(ctx: click.Context, as_json: bool) -> None:
    """Check what is installed here and on the workers; exit status 1 if something is wrong.

    \b
    Example:  dasrec --cluster tcp://scheduler:8786 doctor
    """
    record = cluster.examine(ctx.obj)

    def human() -> None:
        here = record["client"]
        show_facts("This process", {**here.pop("versions"), **here})
        for address, worker in record["workers"].items():
            show_facts(address, {**worker.pop("versions"), **worker})
        click.echo("\n".join(record["faults"]) or "All is well.")

    show(record, as_json=as_json, human=human)
    if record["faults"]:
        ctx.exit(1)
