"""Workflows run from end to end, by public names alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import dasrec
from dasrec import datasets

FOLDER = Path(__file__).resolve().parents[1] / "workflows"
FILES = sorted(FOLDER.glob("*.py"))
COLUMNS = ["--user", "user", "--item", "item", "--value", "value", "--timestamp", "timestamp"]


def retrain(folder: Path, log: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "retrain.py"), log, "out", *COLUMNS]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a log in which tastes differ, and one in which there are none."""
    folder = tmp_path_factory.mktemp("logs")
    datasets.simulate_log(folder / "log.csv", 20_000, n_users=300, n_items=200, rng=0)
    draw = np.random.default_rng(0)
    popular = np.minimum(draw.geometric(0.05, 6000), 60)
    dull = pd.DataFrame({"user": draw.integers(0, 100, 6000), "item": popular, "value": 1.0})
    dull.assign(timestamp=np.arange(6000)).to_csv(folder / "dull.csv", index=False)
    return folder


def check_outcome(folder: Path) -> None:
    model = dasrec.load_model(folder / "out" / "model")
    assert model.name == "implicit-als"
    assert model.get_params()["factors"] == 16
    store = dasrec.open_interactions(folder / "out" / "store")
    lists = pd.read_parquet(folder / "out" / "lists")
    assert lists["user_id"].nunique() == store.n_users
    assert lists["rank"].max() == 5
    assert np.isfinite(lists["score"]).all()
    # the model of the lists was fitted on the whole log
    assert model.trained_on_["masks"] == []


def test_it_writes_lists_and_replaces_them(folder: Path) -> None:
    for _ in range(2):
        done = retrain(folder, "log.csv", "--factors", "16", "--n", "5")
        assert done.returncode == 0, done.stderr
        assert "NDCG@5: {'popular': 0." in done.stdout
        check_outcome(folder)


def test_it_stops_where_popularity_is_as_good(folder: Path, tmp_path: Path) -> None:
    done = retrain(tmp_path, str(folder / "dull.csv"), "--factors", "16")
    assert done.returncode == 1, done.stderr
    assert "popularity was as good; nothing written" in done.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["store"]


def test_it_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    done = retrain(tmp_path, "nothing.csv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nothing.csv is not there" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_it_runs_on_processes(folder: Path) -> None:
    done = retrain(folder, "log.csv", "--factors", "16", "--n", "5", "--cluster", "processes:2")
    assert done.returncode == 0, done.stderr
    check_outcome(folder)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_public_names_are_used(path: Path) -> None:
    allowed = {"dasrec", *(f"dasrec.{name}" for name in dasrec.__all__), "dasrec.cluster.connect"}
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                used |= {each.name for each in names}
            case ast.ImportFrom(module=module, names=names):
                used |= {f"{module}.{each.name}" for each in names}
            case ast.Attribute(value=ast.Name(id="dasrec"), attr=name):
                used.add(f"dasrec.{name}")
    ours = {name for name in used if name.split(".")[0] == "dasrec"}
    assert "dasrec.read_events" in ours
    assert ours <= allowed
