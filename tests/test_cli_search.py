"""The search on the command line: spellings, tables, what is kept, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import dasrec
from dasrec import ImplicitALS, Trials
from dasrec.cli import main
from dasrec.search.space import parse_values
from dasrec.testing import planted_matrix

SPACE = ["--space", "regularization=0.1,1,10", "--space", "factors=2,4"]
SEARCH = [
    *("--model", "implicit-als", "--split", "random:0.2", "--metric", "ndcg@5", "--seed", "3"),
    *("--set", "iterations=3", *SPACE),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cli-search") / "store"
    dasrec.interactions_from_scipy(planted_matrix(), place)
    return place


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def good(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def test_it_says_what_the_function_finds(store: Path, tmp_path: Path) -> None:
    place, page = tmp_path / "place", tmp_path / "page.html"
    record = good(
        *("search", store, *SEARCH, "--budget", 20, "--place", place, "--report", page),
        *("--refit", tmp_path / "model"),
    )
    whole = dasrec.open_interactions(store)
    found = dasrec.search(
        ImplicitALS(iterations=3, rng=3),
        space={"regularization": [0.1, 1, 10], "factors": [2, 4]},
        split=dasrec.split_random(whole, 0.2, rng=3),
        metric="ndcg@5",
        budget=20,
        trials=Trials(rng=3),
    )
    assert record["best_params"] == found.best_params
    assert record["best_metric"] == found.best_metric
    assert (record["spent"], record["finished"]) == (found.trials.attrs["spent"], 1)
    assert [each["trial"] for each in record["trials"]] == list(range(6))
    assert [each["iterations"] for each in record["trials"]] == (
        found.trials["iterations"].values.tolist()
    )
    assert set(record["trials"][0]) == {
        *("trial", "param_factors", "param_regularization", "bracket", "iterations"),
        *("metric", "seconds"),
    }
    assert len(list((place / "trials").iterdir())) == 6
    assert "Parameters and what they came to" in page.read_text()
    model = dasrec.load_model(tmp_path / "model")
    assert model.get_params() == found.model.get_params()
    assert model.trained_on_["masks"] == []
    refused = run("search", store, *SEARCH, "--budget", 21, "--place", tmp_path / "place")
    assert refused.exit_code == 0  # the same rungs
    refused = run("search", store, *SEARCH, "--budget", 9, "--place", tmp_path / "place")
    assert refused.exit_code == 1
    assert "holds a search with other configurations, rungs" in refused.stderr


def test_people_get_tables(store: Path) -> None:
    result = run("search", store, *SEARCH, "--strategy", "grid")
    assert result.exit_code == 0, result.output
    assert "Best of 6 trials" in result.stdout
    head, facts = result.stdout.split("Found")
    for word in ("trial", "factors", "regularization", "iterations", "metric", "seconds"):
        assert word in head
    assert "best_metric" in facts
    assert "spent" in facts
    assert "Time was up" not in result.stdout


def test_values_and_distributions_are_spelled() -> None:
    assert parse_values("0.1,3,true,cg") == [0.1, 3, True, "cg"]
    assert [type(each) for each in parse_values("1,1.0")] == [int, float]
    for text, low, high in (("loguniform:0.01:10", 0.01, 10.0), ("uniform:-1:2", -1.0, 2.0)):
        drawn = parse_values(text).rvs(size=500, random_state=0)
        assert low <= drawn.min() < low + 0.1 * (high - low)
        assert low + 0.8 * (high - low) < drawn.max() <= high
    middle = parse_values("loguniform:0.01:100").rvs(size=500, random_state=0)
    assert 0.3 < sorted(middle)[250] < 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--space", "factors"], "--space is 'factors'; expected a parameter and what it may be"),
        (["--space", "factors="], "--space is 'factors='"),
        (["--set", "=4"], "--set is '=4'"),
        (["--set", "depth=4"], "implicit-als has no depth; it has: factors"),
        (["--space", "tolerance=loguniform:0:1"], "'loguniform:0:1' is no distribution"),
        (["--space", "tolerance=uniform:1"], "'uniform:1' is no distribution; expected two ends"),
        (["--space", "tolerance=uniform:2:1"], "like uniform:0.01:10"),
        (["--users", "2"], "users is 2.0; expected a number between 0 and 1"),
        ([], "budget is missing"),
    ],
)
def test_what_is_misspelled_is_told(store: Path, options: list[str], message: str) -> None:
    result = run("search", store, *SEARCH, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_help_has_an_example() -> None:
    result = run("search", "--help")
    assert result.exit_code == 0
    assert "Example:  dasrec search" in result.output


def test_ctrl_c_leaves_what_the_same_command_goes_on_from(store: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    script = "import sys; from dasrec.cli import main; main(sys.argv[1:])"
    command = [
        *("search", str(store), *SEARCH, "--strategy", "grid", "--place", str(place)),
        *("--set", "iterations=25"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(dasrec.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", script, *command], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 100
        while not list(place.glob("trials/0*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=100)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"Run the same command again to go on from {place}." in errors
    known = {each: each.read_bytes() for each in place.glob("trials/0*")}
    assert 1 <= len(known) < 6
    assert good(*command)["finished"] == 1
    assert all(each.read_bytes() == content for each, content in known.items())
