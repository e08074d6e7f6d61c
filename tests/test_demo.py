"""The main job, as a new user runs it: offline, on public data, and twice into one folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import dasrec
from dasrec import DataUnavailableError, datasets, demo
from dasrec.cli import main

HEADINGS = ("The log", "Long tails", "Learning", "Evaluation", "Lists of implicit-als")


def test_the_demo_runs_offline(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("dasrec")), "demo", "--simulated"]
    done = subprocess.run(
        [*command, "--folder", "out", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Drawing the report" in done.stderr
    record = json.loads(done.stdout)
    assert record["simulated"]
    figures = {each.pop("model"): each for each in record["metrics"]}
    assert list(figures) == ["popular", "biases", "als", "implicit-als"]
    for figure in figures.values():
        assert all(np.isfinite(value) for value in figure.values())
        assert {"precision@10", "recall@20", "ndcg@10", "item_coverage@10"} <= figure.keys()
    assert figures["implicit-als"]["ndcg@10"] > figures["popular"]["ndcg@10"] > 0
    assert figures["als"]["rmse"] < figures["biases"]["rmse"]
    assert "rmse" not in figures["popular"]
    lists = pd.read_parquet(record["places"]["top 10"])
    store = dasrec.open_interactions(record["places"]["interactions"])
    assert lists["user_id"].nunique() == store.n_users
    assert lists.groupby("user_id").size().max() == 10
    assert dasrec.load_model(record["places"]["final model"]).name == "implicit-als"
    page = Path(record["places"]["report"]).read_text("utf-8")
    for heading in HEADINGS:
        assert f">{heading}<" in page
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)  # one file, without a network


def test_the_demo_runs_on_movielens_and_so_does_what_it_suggests(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASREC_DATA_DIR", str(data_dir))
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(main, ["demo", "--folder", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    for model in ("popular", "biases", "als", "implicit-als"):
        assert re.search(rf"│ {model} +│", result.stdout)
    assert "MovieLens 100K, split time:0.2" in result.stdout
    store = dasrec.open_interactions(tmp_path / "out" / "interactions")
    assert (store.n_users, store.n_items, store.n_stored) == (943, 1682, 100_000)
    assert "Toy Story (1995)" in datasets.movielens_100k().titles.to_list()
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert len(re.findall(r"\(19\d\d\)</td>", page)) > 20  # lists show titles
    suggested = [line.strip() for line in result.stdout.split("Try next:")[1].splitlines() if line]
    assert [line.split()[:2] for line in suggested] == [
        ["dasrec", "info"],
        ["dasrec", "evaluate"],
        ["dasrec", "ingest"],
    ]
    for line in suggested[:2]:
        assert CliRunner().invoke(main, shlex.split(line)[1:]).exit_code == 0, line


def test_a_second_run_takes_the_place_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a smaller log, and as if MovieLens could not be had."""

    def smaller(path: Path, n_events: int, **sizes: int) -> datasets.LogFiles:
        assert n_events == 100_000
        return datasets.simulate_log(path, 4_000, n_users=80, n_items=60, rng=sizes["rng"])

    def unavailable() -> datasets.LogFiles:
        message = "there is no network"
        raise DataUnavailableError(message)

    monkeypatch.setattr(demo, "simulate_log", smaller)
    monkeypatch.setattr(demo, "movielens_100k", unavailable)
    said: list[str] = []
    run = partial(demo.run_demo, str(tmp_path / "out"), say=said.append)
    first, second = run(), run(simulated=True, rng=1)
    assert said.count("there is no network. Simulating a log with known truth instead") == 1
    assert first.data.simulated
    assert first.places == second.places
    assert not first.evaluation.equals(second.evaluation)
    store = dasrec.open_interactions(second.places["interactions"])
    assert pd.read_parquet(second.places["top 10"])["user_id"].nunique() == store.n_users


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    result = CliRunner().invoke(main, ["demo", "--simulated", "--folder", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.stderr
    assert "Traceback" not in result.stderr
    assert (tmp_path / "file").read_text() == "mine"
