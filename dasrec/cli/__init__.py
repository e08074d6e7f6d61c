"""The command line: thin over the public functions, no logic of its own."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import click

import dasrec
from dasrec import cluster
from dasrec.cli import features, models, plans, reports, run, search, start, stores
from dasrec.cli.options import WHEN_STOPPED
from dasrec.errors import DasrecError, LeakageWarning

STOPPED = 130
"""Exit status after Ctrl-C, as shells have it."""


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


class _Group(click.Group):
    """Turns errors that dasrec raises on purpose into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", LeakageWarning)
                warnings.showwarning = _say
                return super().invoke(ctx)
        except (DasrecError, OSError) as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except KeyboardInterrupt:
            what = ctx.meta.get(WHEN_STOPPED, "Run the same command again.")
            click.echo(f"Stopped; nothing half-written is in use. {what}", err=True)
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
    help="Where to run: threads, processes:N, tcp://host:8786, or a YAML file with a mapping.",
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
    if ctx.invoked_subcommand not in ("doctor", "run", None) and not {"-h", "--help"} & {*sys.argv}:
        ctx.with_resource(cluster.connect(spec))


for command in (
    start.demo_command,
    run.run_command,
    stores.ingest_command,
    plans.plan_command,
    features.features_command,
    stores.info_command,
    stores.compact_command,
    stores.forget_command,
    stores.verify_command,
    models.split_command,
    models.fit_command,
    search.search_command,
    models.evaluate_command,
    models.compare_command,
    models.recommend_command,
    reports.report_command,
    start.doctor_command,
):
    main.add_command(command)
plans.plan_command.add_command(stores.plan_ingest_command)
