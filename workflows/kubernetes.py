"""Run a workflow on pods of its own, which are there while there is something to do.

Example: python workflows/kubernetes.py workflows/nightly.yaml --image my/dasrec:1 --workers 8 \\
             --volume data:/data --set place=/data/nightly
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dasrec.workflow import exit_status, read_workflow, run_workflow


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflow", help="YAML; its place must be one that all pods reach")
    parser.add_argument("--image", required=True, help="an image that holds dasrec")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--memory", default="4GiB", help="of each pod")
    parser.add_argument(
        "--volume",
        action="append",
        default=[],
        metavar="CLAIM:FOLDER",
        help="a volume's claim, and where all pods see it",
    )
    parser.add_argument("--namespace", help="by default that of this pod, or of kubectl")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    return parser.parse_args()


def cluster_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Describe the cluster, as dasrec.cluster.connect takes it."""
    volumes = dict(reversed(each.split(":", 1)) for each in arguments.volume)
    cluster: dict[str, Any] = {
        "kind": "kubernetes",
        "name": "dasrec",
        "image": arguments.image,
        "workers": arguments.workers,
        "memory": arguments.memory,
        "volumes": volumes,
    }
    if volumes:  # kernels are compiled once, not by each pod
        cluster["env"] = {"NUMBA_CACHE_DIR": f"{next(iter(volumes))}/.cache/numba"}
    return cluster | ({"namespace": arguments.namespace} if arguments.namespace else {})


def main() -> int:
    """Run, and go on where an earlier run was cut off; exit as `dasrec run` does."""
    arguments = parse()
    try:
        workflow = read_workflow(arguments.workflow, arguments.set)
        outcome = run_workflow(workflow, resume=True, on=cluster_of(arguments))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - its status tells what it is
        print(f"stopped: {error!r}", file=sys.stderr)
        return exit_status(error)
    print("did:", ", ".join(outcome.did) or "nothing, since nothing has changed")
    print("this model is in use" if outcome.promoted else "the last model stays in use")
    return 0


if __name__ == "__main__":
    sys.exit(main())
