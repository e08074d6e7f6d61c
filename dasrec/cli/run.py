"""The command that runs a workflow."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import click
from click.core import ParameterSource

from dasrec.cli.options import as_json_option
from dasrec.console import show, show_table
from dasrec.memory import gigabytes
from dasrec.workflow import (
    Outcome,
    Workflow,
    exit_status,
    plan_workflow,
    read_workflow,
    run_workflow,
)
from dasrec.workflow.base import FAULT


@click.command("run")
@click.argument("path", metavar="WORKFLOW.yaml")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Like fit.factors=64; repeatable."
)
@click.option("--resume", is_flag=True, help="Go on with a run that was cut off, if there is one.")
@click.option("--anew", is_flag=True, help="Do the step that was cut off from its beginning.")
@click.option("--wait", is_flag=True, help="Wait for another run in the same place to end.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and touch nothing.")
@as_json_option
@click.pass_context
def run_command(
    ctx: click.Context,
    path: str,
    changes: tuple[str, ...],
    resume: bool,
    anew: bool,
    wait: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a workflow from logs to lists; steps that are done are not done again.

    \b
    Exit status: 0 done, also if the last model stays; 2 refused, and would be again; 75 try later;
    130 or 143 ended by Ctrl-C or SIGTERM, go on with --resume; 1 a fault of dasrec.
    \b
    Example:  dasrec run nightly.yaml --set fit.factors=64 --resume
    """
    with _exiting():
        workflow = read_workflow(path, changes)
        if dry_run:
            _foresee(workflow, as_json=as_json)
            return
        root = ctx.find_root()
        given = root.get_parameter_source("spec") is ParameterSource.COMMANDLINE
        outcome = run_workflow(
            workflow,
            resume=resume,
            anew=anew,
            wait=wait,
            on=root.params["spec"] if given else None,
            say=lambda line: click.echo(line, err=True),
        )
        show(outcome.status, as_json=as_json, human=lambda: _show(outcome))


@contextlib.contextmanager
def _exiting() -> Iterator[None]:
    """Say what went wrong, and end with the status that a scheduler can act on."""
    try:
        yield
    except BaseException as error:
        status = exit_status(error)
        if isinstance(error, KeyboardInterrupt):
            click.echo("Stopped; pass --resume to go on.", err=True)
        elif status == FAULT:
            traceback.print_exception(error)
        else:
            click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(status) from error


def _foresee(workflow: Workflow, *, as_json: bool) -> None:
    plans = plan_workflow(workflow)
    record = {"name": workflow.name, "steps": [plan.as_record() for plan in plans]}
    columns = ["step", "", "tasks", "disk", "peak of memory", "about"]

    def human() -> None:
        rows = [
            [
                *(plan.step, plan.state, plan.n_tasks or ""),
                *(gigabytes(each) if each else "" for each in (plan.disk_bytes, plan.peak_bytes)),
                "" if plan.seconds is None else f"{plan.seconds:.1f} s",
            ]
            for plan in plans
        ]
        show_table(workflow.name, columns, rows)

    show(record, as_json=as_json, human=human)


def _show(outcome: Outcome) -> None:
    rows = [[each["step"], each["state"], each.get("why", "")] for each in outcome.status["steps"]]
    show_table(outcome.status["name"], ["step", "state", "why"], rows)
    if not outcome.did:
        click.echo("Nothing has changed; nothing was done.")
    click.echo("This model is in use." if outcome.promoted else "The last model stays in use.")
