"""Commands about stores: ingest, info, compact, forget, verify."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

import dasrec
from dasrec.cli.options import as_json_option, overwrite_option
from dasrec.console import show, show_audit, show_facts
from dasrec.errors import InputError, StoreError


@click.command("ingest")
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
@overwrite_option
@click.option("--append", is_flag=True, help="Add to the store that is there: a new version.")
@as_json_option
def ingest_command(
    inputs: tuple[str, ...],
    store: str,
    overwrite: bool,
    append: bool,
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
    if append:
        interactions = dasrec.append_interactions(events, store)
    else:
        interactions = dasrec.write_interactions(events, store, overwrite=overwrite)

    def human() -> None:
        show_audit(interactions)
        click.echo(repr(interactions))

    show(_store_record(interactions), as_json=as_json, human=human)


def _store_record(interactions: dasrec.Interactions) -> dict[str, Any]:
    audit = interactions.audit.to_dataframe().reset_index()
    return {
        "store": interactions.url,
        "version": interactions.version,
        "n_users": interactions.n_users,
        "n_items": interactions.n_items,
        "n_interactions": interactions.n_stored,
        "has_timestamps": interactions.has_timestamps,
        "audit": audit.to_dict("records"),
    }


@click.command("info")
@click.argument("place", metavar="STORE|MODEL")
@as_json_option
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


@click.command("compact")
@click.argument("store")
@as_json_option
def compact_command(store: str, as_json: bool) -> None:
    """Write what a store holds now as one group and remove all older versions.

    \b
    Example:  dasrec compact my-store
    """
    interactions = dasrec.compact(store)
    show(_store_record(interactions), as_json=as_json, human=lambda: click.echo(repr(interactions)))


@click.command("forget")
@click.argument("store")
@click.option("--user", "users", multiple=True, required=True, help="Whom; may be repeated.")
@as_json_option
def forget_command(store: str, users: tuple[str, ...], as_json: bool) -> None:
    """Forget people: at once for every reader, for good with the next compact.

    \b
    Example:  dasrec forget my-store --user 4711 && dasrec compact my-store
    """
    known = dasrec.open_interactions(store).user_ids.ids
    try:
        ids = np.array(users).astype(known.dtype)
    except (OverflowError, ValueError) as error:
        msg = f"{store} has integers for user ids; given: {', '.join(users)}"
        raise InputError(msg) from error
    interactions = dasrec.forget(store, users=ids)
    show(_store_record(interactions), as_json=as_json, human=lambda: click.echo(repr(interactions)))


@click.command("verify")
@click.argument("store")
@as_json_option
@click.pass_context
def verify_command(ctx: click.Context, store: str, as_json: bool) -> None:
    """Read every byte of a store; exit status 1 and the places if something is wrong.

    \b
    Example:  dasrec verify my-store
    """
    faults = dasrec.verify(store)
    show(
        {"store": store, "faults": faults},
        as_json=as_json,
        human=lambda: click.echo("\n".join(faults) or "All is well."),
    )
    if faults:
        ctx.exit(1)
