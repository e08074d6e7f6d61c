"""What commands will take: those that begin with a store, and a cluster that is not there yet."""

from __future__ import annotations

import re
from typing import Any

import click

import dasrec
from dasrec.checks import check_count
from dasrec.cli.options import as_json_option, make_model, memory_option
from dasrec.console import show, show_facts, show_plan
from dasrec.memory import readable
from dasrec.models import MODELS
from dasrec.scale import CELL_RATE, Sizes, Workers, plan_scale


@click.group("plan")
def plan_command() -> None:
    """Say what a command will take, before anything runs."""


_KINDS = [name for name, model in MODELS.items() if model.stepwise]
_FIT_FACTS = {
    "factors": "numbers of a vector",
    "n_tasks": "tasks of an iteration",
    "data_bytes": "all blocks, decoded",
    "cache_bytes": "of them kept in memory",
    "factors_in": "factors are in",
    "factor_bytes": "of them in memory",
    "cells_at_once": "for so many cells at once",
    "peak_bytes": "peak of memory",
    "limit_bytes": "limit of memory",
}


@plan_command.command("fit")
@click.argument("store")
@click.option("--factors", type=int, required=True, metavar="K", help="Length of the vectors.")
@click.option(
    "--model", "kind", type=click.Choice(_KINDS), default="implicit-als", show_default=True
)
@click.option("--user-features", is_flag=True, default=None, help="With features of users.")
@click.option("--item-features", is_flag=True, default=None, help="With features of items.")
@click.option("--optimizer", help="Of stochastic gradient descent, as `dasrec fit` has it.")
@memory_option
@click.option("--checkpoint", is_flag=True, help="As if `dasrec fit` were given one.")
@as_json_option
def plan_fit_command(
    store: str,
    kind: str,
    memory: str | None,
    checkpoint: bool,
    as_json: bool,
    **parameters: Any,
) -> None:
    """Say how many tasks and bytes fitting a model takes, and its peak of memory.

    \b
    Example:  dasrec plan fit my-store --model sgd --factors 64 --memory 2GB
    """
    check_count(parameters["factors"], name="factors")
    given = {name: value for name, value in parameters.items() if value is not None}
    model, interactions = make_model(kind, None, given), dasrec.open_interactions(store)
    plan = dasrec.plan_fit(interactions, model=model, memory=memory, checkpoint=checkpoint)
    facts = plan.readable()
    words = {word: facts[key] for key, word in _FIT_FACTS.items()}
    show(plan.as_record(), as_json=as_json, human=lambda: show_facts("Plan", words))


@plan_command.command("rank")
@click.argument("store")
@click.option("--factors", type=int, required=True, metavar="K", help="Length of the vectors.")
@click.option("--n", type=int, default=10, show_default=True, help="Length of each list.")
@memory_option
@as_json_option
def plan_rank_command(store: str, factors: int, n: int, memory: str | None, as_json: bool) -> None:
    """Say how many tasks and bytes it takes to evaluate a model, or to write all its lists.

    \b
    Example:  dasrec plan rank my-store --factors 64 --n 20 --memory 2GB
    """
    check_count(factors, name="factors")
    interactions = dasrec.open_interactions(store)
    plan = dasrec.plan_ranking(interactions, factors=factors, n=n, memory=memory)
    show_plan(plan, as_json=as_json)


class _Count(click.ParamType[int]):
    """A whole number like 300000, 300k, 10M or 1.5G."""

    name = "count"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        """Return it as an integer."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMG]?)", str(value))
        if found is None:
            self.fail(f"{value!r} is no count; expected for instance 300k, 10M or 1.5G", param, ctx)
        number, letter = found.groups()
        return round(float(number) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[letter])


_COUNT = _Count()


@plan_command.command("scale")
@click.option("--users", type=_COUNT, required=True, help="Like 10M.")
@click.option("--items", type=_COUNT, required=True)
@click.option("--interactions", type=_COUNT, required=True, help="Like 1G.")
@click.option("--longest", type=_COUNT, help="Cells of the longest row; by default all users'.")
@click.option("--workers", type=int, required=True, help="Worker processes, one a host.")
@click.option("--threads", type=int, default=4, show_default=True, help="Of each worker.")
@click.option("--memory", default="16GB", show_default=True, help="Of each worker.")
@click.option("--bandwidth", type=_COUNT, default="1G", show_default=True, help="Bytes a second.")
@click.option("--factors", type=int, default=64, show_default=True, help="Length of the vectors.")
@click.option("--cell-rate", type=_COUNT, default=str(round(CELL_RATE)), show_default=True)
@as_json_option
def plan_scale_command(
    users: int,
    items: int,
    interactions: int,
    longest: int | None,
    as_json: bool,
    factors: int,
    cell_rate: int,
    **workers: Any,
) -> None:
    """Say what an iteration of ALS takes on a cluster of some size, without data or cluster.

    \b
    Example:  dasrec plan scale --users 100M --items 2M --interactions 10G --workers 32
    """
    sizes = Sizes(users, items, interactions, longest or max(users, items))
    cluster = Workers(workers.pop("workers"), **workers)
    record = plan_scale(sizes, cluster, factors=factors, cell_rate=cell_rate).as_record()
    show(record, as_json=as_json, human=lambda: show_facts("An iteration", readable(record)))
