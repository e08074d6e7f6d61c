"""Options that several commands share."""

from __future__ import annotations

import click

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there already.")
seed_option = click.option("--seed", type=int, help="Seed of everything random.")


def _lengths(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
    del ctx, param
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError as error:
        msg = f"{value!r} is no list of whole numbers; expected for instance 10,20"
        raise click.BadParameter(msg) from error


lengths_option = click.option(
    "--n", default="10", show_default=True, callback=_lengths, help="List lengths, like 10,20."
)
