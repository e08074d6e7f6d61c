"""Ranking on the command line: plans, lists of others, samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import dasrec
from dasrec.cli import main
from dasrec.testing import planted_matrix

SPLIT = ["--split", "random:0.2", "--seed", 3]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a model of its training part."""
    folder = tmp_path_factory.mktemp("cli-ranking")
    data = dasrec.interactions_from_scipy(planted_matrix(), folder / "store")
    part = dasrec.parse_split(data, "random:0.2", rng=3).train
    dasrec.ALS(factors=4, iterations=3, rng=1).fit(part).save(folder / "model")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def good(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def test_plan_rank_foresees_what_the_function_does(made: Path) -> None:
    options = ["--factors", 8, "--n", 20, "--memory", "4GB"]
    found = good("plan", "rank", made / "store", *options)
    store = dasrec.open_interactions(made / "store")
    expected = dasrec.plan_ranking(store, factors=8, n=20, memory="4GB").as_record()
    # what the process holds may change in between
    assert found.pop("peak_bytes") == pytest.approx(expected.pop("peak_bytes"), rel=0.5)
    assert found == expected
    refused = run("plan", "rank", made / "store", "--factors", 8, "--memory", "1MB")
    assert refused.exit_code == 1
    assert "ranking 60 items for 120 users needs" in refused.stderr


def test_a_sample_is_ranked_on_request(made: Path) -> None:
    given = ["evaluate", made / "model", made / "store", *SPLIT, "--n", 5]
    whole, some = good(*given), good(*given, "--sampled", 9)
    assert (some["sampled"], some["sampled_seed"]) == (9, 3)
    assert "sampled" not in whole
    assert some["metrics"]["recall@5"] > whole["metrics"]["recall@5"]


def test_lists_are_measured_like_their_model(made: Path, tmp_path: Path) -> None:
    part = dasrec.parse_split(dasrec.open_interactions(made / "store"), "random:0.2", rng=3).train
    model = dasrec.load_model(made / "model")
    lists = dasrec.recommend_all(model, part, n=5, out=tmp_path / "lists")
    options = [made / "store", *SPLIT, "--n", 5, "--metrics", "recall,gini,novelty"]
    found, wanted = (good("evaluate", each, *options) for each in (lists, made / "model"))
    assert found["metrics"] == wanted["metrics"]
    assert (found["model"], found["unknown_users"]) == ("lists", 0)
    refused = run("evaluate", lists, *options[:-1], "auc")
    assert refused.exit_code == 1
    assert "lists gives lists or a sample; leave it out" in refused.stderr
