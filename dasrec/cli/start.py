"""Commands to begin with: demo and doctor."""

from __future__ import annotations

import click

from dasrec import cluster, demo
from dasrec.cli.options import as_json_option
from dasrec.console import show, show_demo, show_facts
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
@as_json_option
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
