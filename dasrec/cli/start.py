"""Commands to begin with: demo and doctor."""

from __future__ import annotations

import click

from dasrec import demo, doctor
from dasrec.cli.options import as_json_option
from dasrec.console import show, show_demo, show_health
from dasrec.results import as_record


@click.command("demo")
@click.option(
    "--folder", default="demo-output", show_default=True, help="Where everything is written."
)
@click.option("--simulated", is_flag=True, help="Simulate a log even if MovieLens can be had.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of everything random.")
@as_json_option
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


@click.command("doctor")
@click.option("--cluster", "spec", metavar="SPEC", help="Instead of --cluster before the command.")
@click.option("--store", metavar="PLACE", help="Folder that every process writes to and reads.")
@as_json_option
@click.pass_context
def doctor_command(ctx: click.Context, spec: str | None, store: str | None, as_json: bool) -> None:
    """Check what is installed here, on the scheduler and on the workers, and what they can reach.

    Exit status 1 if something is wrong; each fault comes with its remedy.

    \b
    Example:  dasrec doctor --cluster tcp://scheduler:8786 --store s3://bucket/place
    """
    record = doctor.examine(spec or ctx.obj, store=store)
    show(record, as_json=as_json, human=lambda: show_health(record))
    if record["faults"]:
        ctx.exit(1)
