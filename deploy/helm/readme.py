"""Write the table of values in the chart's README from the comments in its values.yaml.

    python deploy/helm/readme.py [--check]

A comment describes the key below it. A key whose parts have no comments of their own is one row.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parent / "dasrec"
HEADING = "## Values\n"


def comments_of(text: str) -> dict[str, str]:
    """Return the comment above each key, by the key's path with dots."""
    found, above, parents = {}, [], []
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            above.append(bare.lstrip("# "))
        elif ":" in bare and not bare.startswith("-"):
            depth = (len(line) - len(line.lstrip())) // 2
            parents = [*parents[:depth], bare.split(":")[0]]
            if above:
                found[".".join(parents)] = " ".join(above)
            above = []
        else:
            above = []
    return found


def rows(values: dict[str, Any], comments: dict[str, str], parent: str = "") -> Iterator[str]:
    """Yield a row of the table for each value that may be given."""
    for key, value in values.items():
        path = f"{parent}{key}"
        if isinstance(value, dict) and any(each.startswith(f"{path}.") for each in comments):
            yield from rows(value, comments, f"{path}.")
        elif path in comments:
            yield f"| `{path}` | {comments[path]} | `{json.dumps(value)}` |"
        else:
            msg = f"values.yaml: {path} has no comment above it; expected what it does"
            raise SystemExit(msg)


def readme() -> str:
    """Return the README as it should be."""
    text = (CHART / "values.yaml").read_text("utf-8")
    head = (CHART / "README.md").read_text("utf-8").split(HEADING)[0]
    table = "\n".join(rows(yaml.safe_load(text), comments_of(text)))
    return f"{head}{HEADING}\n| value | what it does | default |\n|---|---|---|\n{table}\n"


def main() -> None:
    """Write the README, or say that it is not as it should be."""
    file = CHART / "README.md"
    if "--check" not in sys.argv[1:]:
        file.write_text(readme(), "utf-8")
    elif file.read_text("utf-8") != readme():
        msg = f"{file} is not what values.yaml says; run python deploy/helm/readme.py"
        raise SystemExit(msg)


if __name__ == "__main__":
    main()
