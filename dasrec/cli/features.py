"""The command about what is known of users and items."""

from __future__ import annotations

from typing import Any

import click
import pandas as pd

import dasrec
from dasrec import files
from dasrec.cli.options import as_json_option
from dasrec.console import show, show_facts
from dasrec.errors import InputError
from dasrec.typing import Entity, Unknown


@click.command("features")
@click.argument("store")
@click.option("--user", "user_table", metavar="FILE", help="What is known of users: CSV, Parquet.")
@click.option("--item", "item_table", metavar="FILE", help="What is known of items.")
@click.option("--id", "column", metavar="COL", help="Column of ids; else user_id or item_id.")
@click.option(
    "--separator",
    default="|",
    show_default=True,
    help="What stands between several values in one text.",
)
@click.option(
    "--unknown",
    type=click.Choice(["skip", "add", "error"]),
    default="skip",
    show_default=True,
    help="What becomes of ids that the store does not know.",
)
@as_json_option
def features_command(
    store: str,
    user_table: str | None,
    item_table: str | None,
    column: str | None,
    separator: str,
    unknown: Unknown,
    as_json: bool,
) -> None:
    """Write features of users or items into a store, for fit --user-features or --item-features.

    \b
    Example:  dasrec features my-store --item items.csv --id movieId
    """
    if (user_table is None) == (item_table is None):
        msg = "expected either --user or --item, with a table of one row for each of them"
        raise InputError(msg)
    side: Entity = "item" if user_table is None else "user"
    column = column or f"{side}_id"
    table = _read(str(user_table or item_table), column)
    interactions = dasrec.write_features(
        store, side, table, ids=column, separator=separator or None, unknown=unknown
    )
    found = dasrec.open_features(interactions, side)
    record: dict[str, Any] = {
        "store": interactions.url,
        "version": interactions.version,
        "side": side,
        "n_rows": found.n_rows,
        "n_features": found.n_features,
        "n_stored": found.n_stored,
        "n_unknown": found.n_unknown,
    }
    show(record, as_json=as_json, human=lambda: show_facts("Features", record))


def _read(place: str, column: str) -> pd.DataFrame:
    """Read a table; ids as they are spelled, since "007" is not 7."""
    try:
        with files.reaching(place):
            if place.endswith((".parquet", ".pq")):
                return pd.read_parquet(place)
            return pd.read_csv(place, dtype={column: str})
    except (ValueError, UnicodeDecodeError) as error:
        msg = f"{place} is not readable as a table: {error}"
        raise InputError(msg) from error
