"""The command line: spellings, JSON, exit statuses, and nothing half-written."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import dasrec
from dasrec.cli import main
from dasrec.datasets import simulate_events

COLUMNS = ["--user", "user", "--item", "item", "--value", "value", "--timestamp", "timestamp"]
COMMANDS = ["demo", "ingest", "info", "split", "fit", "evaluate", "compare", "recommend", "report"]
UPKEEP = ["compact", "forget", "verify", "features", "doctor", "run"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def good(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "log.csv"
    simulate_events(5_000, n_users=100, n_items=60, rng=1).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def made(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a model of its split by time."""
    folder = tmp_path_factory.mktemp("made")
    good("ingest", log, folder / "store", *COLUMNS, "--min-user", 2, "--min-item", 2)
    good(
        *("fit", folder / "store", folder / "model", "--model", "als", "--factors", 4),
        *("--iterations", 3, "--split", "time:0.2", "--seed", 1),
    )
    return folder


@pytest.mark.parametrize("command", COMMANDS + UPKEEP)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Example:  dasrec" in result.output
    assert re.search(rf"\b{command}\b", result.output.split("Example:")[1])


def test_evaluate_prints_one_object(made: Path) -> None:
    found = good("evaluate", made / "model", made / "store", "--split", "time:0.2", "--n", "10,20")
    assert found["model"] == "als"
    assert found["split"] == "time:0.2"
    names = {"rmse", "mae", "precision@10", "recall@20", "ndcg@20", "map@10", "item_coverage@20"}
    assert names <= found["metrics"].keys()
    assert all(np.isfinite(value) for value in found["metrics"].values())


def test_evaluate_takes_names_and_a_convention(made: Path) -> None:
    where = [made / "model", made / "store", "--split", "time:0.2"]
    found = good("evaluate", *where, "--metrics", "recall,auc", "--metric", "gini")["metrics"]
    assert list(found) == ["recall@10", "auc", "gini@10"]
    theirs = good("evaluate", *where, "--metrics", "recall", "--compat", "vae")
    assert theirs["compat"] == "vae"
    assert theirs["metrics"]["recall@10"] >= found["recall@10"]
    odd = run("evaluate", *where, "--compat", "spark")
    assert odd.exit_code != 0
    assert "compat is 'spark'; expected one of: implicit, lenskit" in odd.output


@pytest.mark.parametrize(
    "kind",
    [
        "als",
        "implicit-als",
        "sgd",
        "svdpp",
        "bpr",
        "warp",
        "logistic",
        "softmax",
        "gd",
        "popular",
    ],
)
@pytest.mark.parametrize("split", ["time:0.2", "any:1", "last:1", "users:0.1,users:0.1"])
def test_all_models_on_all_splits(made: Path, tmp_path: Path, kind: str, split: str) -> None:
    small = [] if kind == "popular" else ["--factors", 3, "--iterations", 2]
    store = made / "store"
    good("fit", store, tmp_path / "m", "--model", kind, *small, "--split", split, "--seed", 5)
    found = good("evaluate", tmp_path / "m", store, "--split", split, "--n", "5")
    assert found["metrics"]["recall@5"] >= 0


def test_recommend_writes_parquet_and_refuses_to_replace(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    record = good("recommend", made / "model", made / "store", out, "--n", 3)
    table = pd.read_parquet(out)
    assert len(table) == 3 * record["n_users"]
    refused = run("recommend", made / "model", made / "store", out)
    assert refused.exit_code == 1
    assert "exists already" in refused.stderr


def test_evaluate_draws_a_page_with_intervals(made: Path, tmp_path: Path) -> None:
    where = [
        made / "model",
        made / "store",
        "--split",
        "time:0.2",
        "--html",
        tmp_path / "page.html",
    ]
    good("evaluate", *where, "--metrics", "recall,gini")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "recall@10" in page
    assert "95 % interval" in page
    good("evaluate", *where, "--metrics", "gini")
    assert "95 % interval" not in (tmp_path / "page.html").read_text("utf-8")


def test_compare_tells_models_apart(made: Path, tmp_path: Path) -> None:
    store, popular = made / "store", tmp_path / "popular"
    good("fit", store, popular, "--model", "popular", "--split", "time:0.2")
    chosen = ["--split", "time:0.2", "--metrics", "recall,ndcg", "--n", "5,10", "--test", "t"]
    out = tmp_path / "page.html"
    found = good("compare", store, made / "model", popular, *chosen, "--level", 0.9, "--html", out)
    assert (found["baseline"], found["test"], found["level"]) == (str(made / "model"), "t", 0.9)
    assert len(found["figures"]) == 2 * 2 * 2
    last = found["figures"][-1]
    assert (last["model"], last["metric"]) == (str(popular), "ndcg@10")
    measured = good("evaluate", popular, store, "--split", "time:0.2")["metrics"]
    assert last["value"] == pytest.approx(measured["ndcg@10"], rel=1e-12)
    assert last["p"] == last["p_holm"]
    assert "90 % interval" in out.read_text("utf-8")
    shown = run("compare", store, made / "model", popular, *chosen)
    assert "ndcg@10, time:0.2" in shown.output
    assert "p (Holm)" in shown.output


def test_compare_refuses_one_model_and_another_split(made: Path) -> None:
    alone = run("compare", made / "store", made / "model", "--split", "time:0.2")
    assert alone.exit_code == 1
    assert "1 models are given; expected two or more" in alone.stderr
    leak = run("compare", made / "store", *[made / "model"] * 2, "--split", "time:0.3")
    assert leak.exit_code == 1


def test_info_doctor_and_upkeep(log: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = good("ingest", log, store, *COLUMNS)
    again = good("ingest", log, store, *COLUMNS, "--append")
    assert (first["version"], again["version"]) == (1, 2)
    assert good("info", store)["n_users"] == first["n_users"]
    assert good("verify", store)["faults"] == []
    good("forget", store, "--user", "3")
    assert good("compact", store)["version"] == 4
    assert good("doctor")["faults"] == []
    for command in (["info", store], ["verify", store], ["doctor"]):
        assert run(*command).exit_code == 0
    chunk = next(store.glob("state-*/user_items/data/c/0"))
    chunk.write_bytes(chunk.read_bytes()[::-1])
    broken = run("verify", store)
    assert broken.exit_code == 1
    assert "user_items, rows" in broken.output


def test_missing_things_are_named(made: Path, tmp_path: Path) -> None:
    for arguments, message in (
        (["ingest", tmp_path / "no.csv", tmp_path / "s", *COLUMNS], "is not there"),
        (["info", tmp_path / "no"], "is not there, or not written by dasrec"),
        (["fit", made / "store", tmp_path / "m", "--model", "als", "--factors", 0], "factors is 0"),
        (["fit", made / "store", tmp_path / "m", "--model", "als", "--split", "odd"], "split is"),
        (["fit", made / "store", tmp_path / "m", "--model", "popular", "--factors", 3], "has no"),
        (["recommend", made / "model", made / "store", tmp_path / "l", "--n", 10**6], "catalogue"),
        (["--cluster", "mars", "info", made / "store"], "cluster is 'mars'"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1, arguments
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_model_of_another_store_and_a_leak_are_refused(
    made: Path, log: Path, tmp_path: Path
) -> None:
    good("ingest", log, tmp_path / "other", *COLUMNS, "--min-item", 80)
    result = run("evaluate", made / "model", tmp_path / "other", "--split", "time:0.2")
    assert result.exit_code == 1
    assert "does not belong" in result.stderr
    leak = run("evaluate", made / "model", made / "store", "--split", "random:0.3")
    assert leak.exit_code == 1
    assert "may know what is tested" in leak.stderr


# -- features --------------------------------------------------------------------------------------


@pytest.fixture
def described(made: Path, tmp_path: Path) -> Path:
    """A folder with a copy of the store, and a table of its items without the first."""
    shutil.copytree(made / "store", tmp_path / "store")
    items = dasrec.open_interactions(tmp_path / "store").item_ids.ids
    genres = np.array(["a|b", "b", "c"])[np.arange(len(items)) % 3]
    table = pd.DataFrame({"movie": items, "genre": genres, "year": np.arange(len(items))})
    table.loc[0, "movie"] = 4711
    table.to_csv(tmp_path / "items.csv", index=False)
    table.to_parquet(tmp_path / "items.parquet")
    return tmp_path


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_features_are_written_and_fitted(described: Path, suffix: str) -> None:
    store, table = described / "store", described / f"items.{suffix}"
    found = good("features", store, "--item", table, "--id", "movie")
    assert (found["side"], found["version"], found["n_features"]) == ("item", 2, 4)
    assert (found["n_rows"], found["n_unknown"]) == (60, 1)
    names = dasrec.open_features(dasrec.open_interactions(store), "item").names.tolist()
    assert names == ["genre=a", "genre=b", "genre=c", "year"]
    assert good("info", store)["features"] == {"item": 4}
    assert "features" in run("features", store, "--item", table, "--id", "movie").output
    record = good(
        *("fit", store, described / "m", *ALS, "--iterations", 2),
        *("--item-features", "--feature-regularization", 2.5),
    )
    assert record["parameters"]["item_features"] is True
    assert record["parameters"]["user_features"] is False
    assert record["parameters"]["feature_regularization"] == 2.5
    assert dasrec.load_model(described / "m").item_feature_weights_.shape == (4, 4)
    plans = [
        good("plan", "fit", store, "--factors", 8, *each) for each in ([], ["--item-features"])
    ]
    assert plans[1]["factor_bytes"] > plans[0]["factor_bytes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected either --user or --item"),
        (["--user", "items.csv", "--item", "items.csv"], "expected either --user or --item"),
        (["--item", "items.csv"], "has no column 'item_id'; it has: 'movie'"),
        (["--item", "nowhere.csv"], "nowhere.csv"),
        (["--item", "empty.csv"], "empty.csv is not readable as a table"),
    ],
)
def test_features_that_cannot_be_read_are_refused(
    described: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(described)
    Path("empty.csv").touch()
    result = run("features", "store", *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert dasrec.open_interactions("store").version == 1


def test_features_are_only_for_models_that_know_them(described: Path) -> None:
    fit = ("fit", described / "store", described / "m")
    result = run(*fit, "--model", "popular", "--item-features")
    assert "popular has no item_features" in result.stderr
    result = run(*fit, *ALS, "--item-features")
    assert result.exit_code == 1
    assert "write them with write_features (dasrec features)" in result.stderr


# -- fit -------------------------------------------------------------------------------------------


ALS = ["--model", "implicit-als", "--factors", 4, "--seed", 1]
WATCHED = ["--split", "time:0.2", "--monitor", "ndcg@10"]


def test_plan_fit_foresees_what_the_function_does(made: Path) -> None:
    found = good("plan", "fit", made / "store", "--factors", 8, "--memory", "4GB")
    store = dasrec.open_interactions(made / "store")
    expected = dasrec.plan_fit(store, factors=8, memory="4GB").as_record()
    assert found.pop("peak_bytes") == pytest.approx(expected.pop("peak_bytes"), rel=0.5)
    assert found == expected
    assert found["limit_bytes"] == 4e9
    text = run("plan", "fit", made / "store", "--factors", 8, "--memory", "4GB").output
    for words in ("tasks of an iteration", "factors are in", "limit of memory", "4.00 GB"):
        assert words in text
    kept = ["--model", "sgd", "--optimizer", "adam", "--factors", 8]
    found, model = (
        good("plan", "fit", made / "store", *kept),
        dasrec.SGD(factors=8, optimizer="adam"),
    )
    assert found["factor_bytes"] == dasrec.plan_fit(store, model=model).factor_bytes
    assert "popular" in run("plan", "fit", made / "store", "--model", "popular").stderr
    wide = ["plan", "fit", made / "store", "--factors", 10**6, "--checkpoint", "--memory"]
    plan = good(*wide, "100GB")
    less = plan["peak_bytes"] - plan["cache_bytes"] - plan["factor_bytes"] // 2
    assert [good(*wide, each)["factors_in"] for each in ("100GB", less)] == ["memory", "files"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--factors", 8, "--memory", "1MB"], "fitting 8 factors of 100 users and 60 items needs"),
        (["--factors", 8, "--memory", "much"], "memory is 'much'; expected bytes or a text"),
        (["--factors", 0], "factors is 0; expected a whole number, at least 1"),
    ],
)
def test_a_plan_of_a_fit_refuses_what_the_fit_would(
    made: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    model = [tmp_path / "model", "--model", "als"]
    for command in (["plan", "fit", made / "store"], ["fit", made / "store", *model]):
        result = run(*command, *options)
        assert result.exit_code == 1
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert run("plan", "fit", made / "store").exit_code == 2


def test_the_help_of_fit_has_sections() -> None:
    text = run("fit", "--help").output
    headings = re.findall(r"^(\w.*):$", text, re.M)
    assert headings == ["Parameters of the model", "Course of the fit", "Options"]
    controls = inspect.signature(dasrec.Training).parameters.keys() - {"callbacks"}
    assert controls <= {param.name for param in main.commands["fit"].params}


def test_fit_gives_the_model_its_solver(made: Path, tmp_path: Path) -> None:
    options = ["--solver", "exact", "--tolerance", 1e-3, "--memory", "4GB", "--iterations", 2]
    good("fit", made / "store", tmp_path / "model", *ALS, *options)
    model = dasrec.load_model(tmp_path / "model")
    assert (model.solver, model.tolerance) == ("exact", 1e-3)
    same = dasrec.ImplicitALS(factors=4, solver="exact", tolerance=1e-3, iterations=2, rng=1)
    same.fit(dasrec.open_interactions(made / "store"))
    assert np.array_equal(model.user_factors_, same.user_factors_)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (["--nonnegative"], {"nonnegative": True}),
        (["--solver", "subspace"], {"solver": "subspace"}),
    ],
)
def test_fit_knows_other_ways_to_solve_rows(
    made: Path, tmp_path: Path, options: list[str], parameters: dict[str, Any]
) -> None:
    good("fit", made / "store", tmp_path / "model", *ALS, *options, "--iterations", 2)
    same = dasrec.ImplicitALS(factors=4, iterations=2, rng=1, **parameters)
    same.fit(dasrec.open_interactions(made / "store"))
    found = dasrec.load_model(tmp_path / "model")
    assert found.get_params() == same.get_params()
    assert np.array_equal(found.user_factors_, same.user_factors_)


def test_fit_stops_early_and_writes_what_it_did(made: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = [*WATCHED, "--patience", 2, "--iterations", 100, "--log", log]
    found = good("fit", made / "store", tmp_path / "model", *ALS, *options)
    figures = found["monitor"]
    assert len(figures) == len(found["objective"]) < 100
    assert int(np.argmax(figures)) == len(figures) - 3
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["monitor"] for line in lines] == figures
    chosen = ["--split", "time:0.2", "--metric", "ndcg"]
    measured = good("evaluate", tmp_path / "model", made / "store", *chosen)
    assert measured["metrics"]["ndcg@10"] == pytest.approx(max(figures), rel=1e-6)


@pytest.mark.parametrize(("limit", "done"), [("0.0001", 1), ("1us", 1), ("600", 3), ("5min", 3)])
def test_fit_keeps_to_a_limit_of_time(made: Path, tmp_path: Path, limit: str, done: int) -> None:
    options = ["--iterations", 3, "--time-limit", limit]
    found = good("fit", made / "store", tmp_path / "model", *ALS, *options)
    assert len(found["objective"]) == done


@pytest.mark.parametrize("split", ["time:0.2", "random:0.2"])
def test_a_fit_resumes_as_if_it_had_not_been_stopped(
    made: Path, tmp_path: Path, split: str
) -> None:
    """A split at random without a seed is the one that the checkpoint was fitted on."""
    seeded = [] if split.startswith("random") else ["--seed", 1]
    command = ["--model", "implicit-als", "--factors", 4, *seeded, "--split", split]
    kept = ["--checkpoint", tmp_path / "kept", "--monitor", "recall@5"]
    store = made / "store"
    first = good("fit", store, tmp_path / "first", *command, *kept, "--iterations", 2)
    again = ["--iterations", 5, "--resume"]
    second = good("fit", store, tmp_path / "second", *command, *kept, *again)
    assert len(second["objective"]) == 5
    assert second["objective"][:2] == first["objective"]
    assert second["monitor"][:2] == first["monitor"]
    resumed = dasrec.load_model(tmp_path / "second")
    whole = dasrec.parse_split(
        dasrec.open_interactions(store), split, rng=resumed.trained_on_["masks"][0].get("seed")
    )
    straight = dasrec.ImplicitALS(factors=4, iterations=5, rng=int(resumed.seed_))
    straight.fit(whole.train)
    assert np.array_equal(resumed.user_factors_, straight.user_factors_)
    other = run("fit", store, tmp_path / "third", *command, *kept, *again, "--tolerance", 1e-3)
    assert other.exit_code == 1
    assert "was fitted with other tolerance; choose another place" in other.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--monitor", "ndcg@10"], "--monitor is given without --split; expected both, as --split"),
        (["--patience", 2], "--patience is given without --monitor; expected both, as --monitor"),
        (["--resume"], "--resume is given without --checkpoint; expected both, as --checkpoint"),
        (["--checkpoint-every", "5min"], "--checkpoint-every is given without --checkpoint; expec"),
        (["--split", "time:0.2", "--monitor", "f7"], "metric 'f7' is unknown; expected some of: r"),
        (["--split", "time:0.2", "--monitor", "ndcg"], "metric 'ndcg' is unknown; expected one of"),
        (["--split", "time:0.2", "--monitor", "rmse"], "rmse needs predicted values, and what"),
        ([*WATCHED, "--patience", 0], "patience is 0; expected a whole number of iterations"),
        (["--time-limit", "soon"], "time_limit is 'soon'; expected seconds above 0, or text like"),
        (["--time-limit", "0"], "time_limit is 0.0; expected seconds above 0, or text like"),
        (["--checkpoint", "model"], "--checkpoint is the place of the model, model; choose"),
        (["--solver", "magic"], "solver is 'magic'; expected one of: auto, exact, cg, subsp"),
        (["--nonnegative", "--solver", "cg"], "solver is 'cg' and nonnegative is True; expected"),
        (["--tolerance", 0], "tolerance is 0.0; expected a finite number greater than 0"),
    ],
)
def test_options_of_fit_that_make_no_sense_are_refused(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[object],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("fit", made / "store", "model", *ALS, *options)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_fit_gives_the_model_its_steps(made: Path, tmp_path: Path) -> None:
    options = ["--learning-rate", 0.02, "--schedule", "bold", "--negatives", "popular"]
    small = ["--factors", 3, "--iterations", 2, "--seed", 1]
    good("fit", made / "store", tmp_path / "m", "--model", "bpr", *small, *options)
    model = dasrec.load_model(tmp_path / "m")
    assert isinstance(model, dasrec.BPR)
    assert (model.learning_rate, model.schedule, model.negatives) == (0.02, "bold", "popular")
    checkpoint = ["--checkpoint", tmp_path / "kept", "--resume"]
    again = ["fit", made / "store", tmp_path / "n", "--model", "sgd", *small, "--decay", 0.5]
    assert len(good(*again, *checkpoint)["objective"]) == 2
    assert run(*again, "--schedule", "wild", "--overwrite").exit_code == 1


@pytest.mark.parametrize("kind", ["popular", "biases"])
def test_models_without_steps_refuse_to_be_controlled(
    made: Path, tmp_path: Path, kind: str
) -> None:
    command = ["fit", made / "store", tmp_path / "model", "--model", kind]
    result = run(*command, "--checkpoint", tmp_path / "kept", "--time-limit", "10min")
    assert result.exit_code == 1
    assert "not fitted step by step; leave out --time-limit, --checkpoint" in result.stderr
    assert f"{kind} has no solver" in run(*command, "--solver", "cg").stderr
    assert not any(tmp_path.iterdir())


# -- what is cut off ------------------------------------------------------------------------------


def test_versions_and_cut_off_stores_are_refused(made: Path, log: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    good("ingest", log, store, *COLUMNS)
    pointer = store / "version-00000001.json"
    content = json.loads(pointer.read_text())
    pointer.write_text(json.dumps({**content, "format_version": 99}))
    newer = run("info", store)
    assert newer.exit_code == 1
    assert "format version 99; this dasrec reads version 1" in newer.stderr
    pointer.unlink()
    cut_off = run("info", store)
    assert cut_off.exit_code == 1
    assert "unfinished: its writing was cut off" in cut_off.stderr
    good("ingest", log, store, *COLUMNS)


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from dasrec.cli import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def interrupt_when(process: subprocess.Popen[str], sign: Path, pattern: str) -> tuple[int, str]:
    """Send Ctrl-C once the sign that work has begun is there."""
    deadline = time.monotonic() + 60
    while not list(sign.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=60), process.communicate()[1]


def test_ctrl_c_in_the_middle_of_ingest_leaves_what_was_there(tmp_path: Path, log: Path) -> None:
    store = tmp_path / "store"
    before = good("ingest", log, store, *COLUMNS)
    big = tmp_path / "big.csv"
    simulate_events(1_000_000, n_users=2000, n_items=500, rng=1).to_csv(big, index=False)
    process = start("ingest", big, store, *COLUMNS, "--overwrite")
    status, errors = interrupt_when(process, store, "scratch-*/scan-*")
    assert status == 130, errors
    assert "Traceback" not in errors
    assert "Run the same command again" in errors
    assert good("info", store)["n_interactions"] == before["n_interactions"]
    assert good("ingest", big, store, *COLUMNS, "--overwrite")["n_users"] == 2000
    assert sorted(path.name.split("-")[0] for path in store.iterdir()) == [
        "state",
        "version",
        "zarr.json",
    ]


def test_ctrl_c_in_the_middle_of_fit_leaves_no_model(tmp_path: Path, made: Path) -> None:
    command = ["fit", made / "store", tmp_path / "model", "--model", "implicit-als"]
    process = start("--verbose", *command, "--iterations", 100_000, "--factors", 8)
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "iteration 3" in line:
                break
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 130, errors
    assert "Traceback" not in errors
    assert "Run the same command again." in errors
    assert not any(tmp_path.iterdir())


def test_ctrl_c_in_the_middle_of_fit_says_how_to_go_on(tmp_path: Path, made: Path) -> None:
    kept = tmp_path / "kept"
    command = ["fit", made / "store", tmp_path / "model", *ALS, "--checkpoint", kept]
    process = start(*command, "--iterations", 100_000)
    status, errors = interrupt_when(process, kept, "version-00000003.json")
    assert status == 130, errors
    assert "Traceback" not in errors
    assert f"Run the same command with --resume to go on from {kept}." in errors
    assert not (tmp_path / "model").exists()
    done = dasrec.load_model(kept).history_.sizes["iteration"]
    found = good(*command, "--iterations", done + 2, "--resume")
    assert len(found["objective"]) == done + 2


def test_it_is_a_command_of_dask_too() -> None:
    command = [str(Path(sys.executable).with_name("dask")), "rec", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Recommendations from interaction logs" in result.stdout


def test_version() -> None:
    assert dasrec.__version__ in run("--version").output
