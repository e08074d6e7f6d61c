"""Workflows: from a log to lists by one file of YAML, step by step, on any cluster.

:func:`read_workflow` reads and checks one, :func:`plan_workflow` says what it would take,
:func:`run_workflow` runs it, :func:`promoted` says what is in use; docs/workflows.md explains them.
``dasrec run`` is the same on the command line.
"""

from dasrec.workflow.base import exit_status
from dasrec.workflow.foresee import StepPlan, plan_workflow
from dasrec.workflow.place import Promoted, promoted
from dasrec.workflow.runner import Outcome, run_workflow
from dasrec.workflow.spec import Workflow, read_workflow

__all__ = [
    "Outcome",
    "Promoted",
    "StepPlan",
    "Workflow",
    "exit_status",
    "plan_workflow",
    "promoted",
    "read_workflow",
    "run_workflow",
]
