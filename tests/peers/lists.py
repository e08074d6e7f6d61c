"""Lists, truth and history of made-up users, and what other libraries say of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
RECORDED = FOLDER / "figures.json"
LIBRARIES = ("implicit", "lenskit", "rectools")
N, N_USERS, N_ITEMS = 8, 50, 150


def draw_case(*, short: bool, empty: bool = False) -> dict[str, Any]:
    """Draw lists of N, or some that end early and perhaps one that is empty.

    Every user has something to find, some more than N; all items but the last are in training.
    """
    draw = np.random.default_rng(5)
    lists, truth, seen = [], [], []
    for user in range(N_USERS):
        known = np.sort(draw.permutation(N_ITEMS - 1)[: 2 + user % 7])
        if user < 2:
            known = np.arange(user, N_ITEMS - 1, 2)
        left = np.setdiff1d(np.arange(N_ITEMS), known)
        wanted = np.sort(draw.choice(left, 1 + user % 12, replace=False))
        others = np.setdiff1d(left, wanted)
        n_found = int(draw.integers(0, min(len(wanted), N) + 1))
        listed = np.concatenate(
            [
                draw.choice(wanted, n_found, replace=False),
                draw.choice(others, N - n_found, replace=False),
            ]
        )
        length = int(draw.integers(1, N + 1)) if short and user % 3 == 0 else N
        lists.append([] if empty and user == 7 else draw.permutation(listed)[:length].tolist())
        weights = draw.integers(1, 6, len(wanted))
        truth.append(np.column_stack([wanted, weights]).tolist())
        seen.append([[int(item), 1] for item in known])
    return {"lists": lists, "truth": truth, "seen": seen, "n": N, "n_items": N_ITEMS}


def case_of(library: str, *, short: bool) -> dict[str, Any]:
    """Draw what this library is asked about; LensKit makes NaN of all if one list is empty."""
    return {**draw_case(short=short, empty=short and library != "lenskit"), "library": library}


def peer_python() -> str:
    """Return the Python of the environment that ``make peers`` builds."""
    return os.environ.get("DASREC_PEERS", str(FOLDER.parents[1] / ".venv-peers/bin/python"))


def ask(case: dict[str, Any], python: str = sys.executable) -> dict[str, Any] | None:
    """Have a library measure; None if it is not there.

    Raises
    ------
    RuntimeError
        It is there and fails.
    """
    probe = (
        f"import importlib.util as u; raise SystemExit(u.find_spec('{case['library']}') is None)"
    )
    try:
        if subprocess.run([python, "-c", probe], check=False).returncode:
            return None
    except FileNotFoundError:
        return None
    command = [python, "-W", "ignore", str(FOLDER / "measure.py")]
    done = subprocess.run(
        command, input=json.dumps(case), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout))


def record() -> None:
    """Write what the libraries say of all lists beside this file."""
    python = {"implicit": sys.executable}
    told = {
        f"{library}, {'short' if short else 'full'} lists": ask(
            case_of(library, short=short), python.get(library, peer_python())
        )
        for library in LIBRARIES
        for short in (False, True)
    }
    RECORDED.write_text(json.dumps(told, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    record()
