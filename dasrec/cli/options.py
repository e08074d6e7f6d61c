"""Options that several commands share, and help in sections."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import click

from dasrec.errors import InputError
from dasrec.interactions import Interactions
from dasrec.models import MODELS, Model
from dasrec.split import Split, parse_split


class SectionOption(click.Option):
    """An option that ``--help`` lists under a heading of its own."""

    def __init__(self, *arguments: Any, section: str, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.section = section


class SectionCommand(click.Command):
    """A command whose ``--help`` lists options by section, those without one last."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one list for each section."""
        sections = defaultdict(list)
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if isinstance(param, click.Option) and record is not None:
                sections[getattr(param, "section", "Options")].append(record)
        plain = sections.pop("Options", [])
        for heading, records in [*sections.items(), ("Options", plain)]:
            with formatter.section(heading):
                formatter.write_dl(records)


def section_option(section: str, *names: str, **settings: Any) -> Any:
    """Make an option that ``--help`` lists under this heading."""
    return click.option(*names, cls=SectionOption, section=section, **settings)


WHEN_STOPPED = "dasrec.when_stopped"
"""Key of what a command says after Ctrl-C, in the ``meta`` of click's context."""

MEMORY_HELP = "What this process, or each worker, may hold, like 2GB."

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there already.")
memory_option = click.option("--memory", metavar="SIZE", help=MEMORY_HELP)
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


def make_model(kind: str, seed: int | None, given: dict[str, Any]) -> Model:
    """Return an unfitted model with some parameters."""
    known = MODELS[kind]().get_params()
    for name in given:
        if name not in known:
            msg = f"{kind} has no {name}; it has: {', '.join(known) or 'no parameters'}"
            raise InputError(msg)
    return MODELS[kind](**given, **({"rng": seed} if "rng" in known else {}))


def split_for(
    model: Model | None, interactions: Interactions, text: str, seed: int | None
) -> Split:
    """Make the split; a random one by the seed that the model was fitted with, unless told."""
    masks = [] if model is None else model.trained_on_["masks"]
    seeds = [mask["seed"] for mask in masks if "seed" in mask]
    return parse_split(interactions, text, rng=seed if seed is not None or not seeds else seeds[0])
