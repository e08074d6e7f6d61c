"""dasrec report: one page of whatever is given, and as much of it as there is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import dasrec
from dasrec import measure
from dasrec.datasets import simulate_events
from tests.test_cli import COLUMNS, good, run
from tests.test_report import EVIL, _Tags


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, models of its split by time, titles and figures."""
    folder = tmp_path_factory.mktemp("made")
    log = simulate_events(4_000, n_users=80, n_items=50, rng=1)
    log.to_csv(folder / "log.csv", index=False)
    titles = pd.DataFrame({"item_id": range(50), "title": [f"Title {i}" for i in range(50)]})
    titles.iloc[1:].to_csv(folder / "titles.csv", index=False)
    store = folder / "store"
    good("ingest", folder / "log.csv", store, *COLUMNS)
    for kind, options in (("implicit-als", ["--factors", 4]), ("bpr", ["--factors", 4])):
        fast = [*options, "--iterations", 3, "--seed", 0]
        good("fit", store, folder / kind, "--model", kind, *fast, "--split", "time:0.2")
    good("fit", store, folder / "popular", "--model", "popular", "--split", "time:0.2")
    split = ["--split", "time:0.2", "--n", "5"]
    one = good("evaluate", folder / "implicit-als", store, *split)
    (folder / "evaluation.json").write_text(json.dumps(one))
    names = ["--metrics", "ndcg,recall"]
    two = good("compare", store, folder / "popular", folder / "implicit-als", *split, *names)
    (folder / "comparison.json").write_text(json.dumps(two))
    return folder


def page_of(kind: str, *arguments: object, out: Path) -> _Tags:
    record = good("report", arguments[0], out, *arguments[1:])
    assert record == {"report": str(out), "kind": kind}
    text = out.read_text("utf-8")
    assert "NaN" not in _Tags(text).text_of("td")
    return _Tags(text)


def figures_of(page: _Tags) -> list[str | None]:
    return [attrs.get("aria-label") for tag, attrs in page.tags if tag == "figure"]


def test_a_store_and_its_models(made: Path, tmp_path: Path) -> None:
    models = ["--model", made / "implicit-als", "--split", "time:0.2", "--n", "5"]
    page = page_of("store", made / "store", *models, out=tmp_path / "page.html")
    headings = ["The log", "Activity", "Long tails", "The matrix", "Learning", "Evaluation"]
    assert page.text_of("h2")[1:] == [*headings, "Lists of implicit-als"]
    assert figures_of(page) == [
        "Activity in time",
        "Interactions of each user",
        "Interactions of each item",
        "Interactions of users and items",
        "Learning curve",
        "Ranking metrics at n = 5",
    ]


def test_a_store_without_times(tmp_path: Path) -> None:
    log = pd.DataFrame({"u": [1, 2, 2, 3], "i": ["a", "b", EVIL, "a"]})
    events = dasrec.read_events(log, user="u", item="i")
    dasrec.write_interactions(events, tmp_path / "store")
    page = page_of("store", tmp_path / "store", out=tmp_path / "page.html")
    assert page.text_of("h2")[1:] == ["The log", "Long tails", "The matrix"]


def test_a_model_with_lists_and_reasons(made: Path, tmp_path: Path) -> None:
    titles = ["--titles", made / "titles.csv"]
    page = page_of("model", made / "implicit-als", *titles, out=tmp_path / "page.html")
    users = page.text_of("h2")[-3:]
    assert page.text_of("h2")[1:-3] == ["The model", "Learning", "Items"]
    assert all(each.startswith("User ") for each in users)
    facts = dict(zip(page.text_of("dt"), page.text_of("dd"), strict=True))
    assert facts["factors"] == "4"
    assert facts["knows"] == "80 users, 50 items"
    assert facts["part"].startswith("not After(cut=")
    # the page says what the library says
    model = dasrec.load_model(made / "implicit-als")
    user = type(model.user_ids_.ids[0])(users[0].removeprefix("User "))
    seen = dasrec.open_interactions(made / "store")
    found = dasrec.explain(model, seen, user_id=user, n=1, reasons=4)
    item, reason = found["item_id"].values[0], found["reason_id"].values[0, 0]
    named = {0: "0"}  # the one without a title
    rows = [text for tag, text in page.texts if tag in ("th", "td")]
    place = rows.index(named.get(item, f"Title {item}"))
    value = float(found["contribution"][0, 0])
    assert rows[place + 2].startswith(f"{named.get(reason, f'Title {reason}')} ({value:.3g});")


def test_a_model_of_other_kinds(made: Path, tmp_path: Path) -> None:
    page = page_of("model", made / "bpr", out=tmp_path / "page.html")
    assert "Cosines do not add up to the score" in " ".join(page.text_of("p"))
    page = page_of("model", made / "popular", out=tmp_path / "page.html")
    assert page.text_of("h2")[1:] == ["The model", "Lists of popular"]


def test_a_model_outlives_its_store(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "store", tmp_path / "store")
    popular = ["--model", "implicit-als", "--factors", 2, "--iterations", 1]
    good("fit", tmp_path / "store", tmp_path / "model", *popular)
    shutil.rmtree(tmp_path / "store")
    page = page_of("model", tmp_path / "model", out=tmp_path / "page.html")
    assert page.text_of("h2")[-1] == "Lists"
    assert "is not there, or another by now: no lists can be shown." in page.text_of("p")[-1]


def test_an_evaluation_and_a_comparison(made: Path, tmp_path: Path) -> None:
    page = page_of("evaluation", made / "evaluation.json", out=tmp_path / "page.html")
    figures = json.loads((made / "evaluation.json").read_text())["metrics"]
    shown = [text for tag, text in page.texts if tag in ("td", "strong")]
    assert f"{figures['ndcg@5']:.4f}" in shown
    page = page_of("evaluation", made / "comparison.json", out=tmp_path / "page.html")
    assert page.text_of("h2")[1:] == ["Means", "Differences"]
    first, *_ = json.loads((made / "comparison.json").read_text())["figures"]
    assert f"{first['value']:.4f}" in page.text_of("td")


def test_an_evaluation_has_figures_by_unit(made: Path, tmp_path: Path) -> None:
    where = [made / "implicit-als", made / "store", "--split", "time:0.2", "--n", "3,5"]
    record = good("evaluate", *where, "--metrics", "ndcg,novelty,gini")
    (tmp_path / "figures.json").write_text(json.dumps(record))
    page = page_of("evaluation", tmp_path / "figures.json", out=tmp_path / "page.html")
    assert figures_of(page) == [f"Ranking metrics at n = {n}" for n in (3, 5, 3, 5)]
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "Value (bits)" in text
    assert "Value (fraction)" in text


def test_an_evaluation_by_groups(made: Path, tmp_path: Path) -> None:
    groups = pd.DataFrame({"user_id": range(60), "group": ["old"] * 30 + ["new"] * 30})
    groups.to_csv(tmp_path / "groups.csv", index=False)
    where = [made / "implicit-als", made / "store", "--split", "time:0.2", "--n", "3,5"]
    names = ["--metrics", "ndcg,recall,calibration"]
    labels = ["--user-groups", tmp_path / "groups.csv", "--item-groups", "popularity"]
    record = good("evaluate", *where, *names, *labels, "--html", tmp_path / "drawn.html")
    (tmp_path / "figures.json").write_text(json.dumps(record))
    page = page_of("evaluation", tmp_path / "figures.json", out=tmp_path / "page.html")
    assert figures_of(page) == ["ndcg@3 by user group", "recall@3 by user group"]
    assert {"new / head", "old / tail", "recall@5"} <= {*page.text_of("th")}
    shown = f"{record['metrics']['recall/old/tail@5']:.4f}"
    assert shown in page.text_of("td")
    drawn = _Tags((tmp_path / "drawn.html").read_text("utf-8"))
    assert drawn.text_of("h2")[1:] == ["By groups", "Means"]
    assert shown in drawn.text_of("td")
    # the same as from Python
    model, store = (
        dasrec.load_model(made / "implicit-als"),
        dasrec.open_interactions(made / "store"),
    )
    side = groups.set_index("user_id")["group"].reindex(store.user_ids.ids).to_numpy()
    alone = dasrec.evaluate(
        model, dasrec.split_by_time(store, 0.2), n=5, metrics=["recall"], groups={"user": side}
    )
    by_user = good("evaluate", *where, "--metrics", "recall", *labels[:2])
    assert by_user["metrics"]["recall/new@5"] == pytest.approx(float(alone["recall"][0, 0]))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["user_id,kind", "1,a"], "group"),
        (["user_id,group", "1,a", "1,b"], "has user_id 1 more than once; expected one group"),
        (["user_id,group", "-5,a"], "has no label that is not missing"),
    ],
)
def test_groups_that_say_nothing_are_refused(
    made: Path, tmp_path: Path, rows: list[str], words: str
) -> None:
    place = tmp_path / "groups.csv"
    place.write_text("\n".join(rows))
    where = [made / "implicit-als", made / "store", "--split", "time:0.2"]
    refused = run("evaluate", *where, "--user-groups", place)
    assert refused.exit_code == 1
    assert words in refused.stderr


@pytest.mark.parametrize(
    ("place", "options", "words"),
    [
        ("nowhere", [], "is not there"),
        ("nowhere.json", [], "nowhere.json"),
        ("odd.json", [], "odd.json is not readable as JSON"),
        ("list.json", [], "holds list; expected a JSON object"),
        ("other.json", [], "is no evaluation; expected what dasrec evaluate or compare print"),
        ("popular", ["--split", "time:0.2"], "--model and --split go with a store, and"),
        ("evaluation.json", ["--model", "popular"], "--model and --split go with a store, and"),
    ],
)
def test_what_has_no_page_is_refused(
    made: Path, tmp_path: Path, place: str, options: list[str], words: str
) -> None:
    for name, text in (("odd.json", "{"), ("list.json", "[]"), ("other.json", "{}")):
        (made / name).write_text(text)
    refused = run("report", made / place, tmp_path / "page.html", *options)
    assert refused.exit_code == 1
    assert words in refused.stderr
    assert not (tmp_path / "page.html").exists()


def test_evaluate_ranks_once_for_its_page(made: Path, tmp_path: Path) -> None:
    real: Callable[..., Any] = measure.make_lists
    where = [made / "implicit-als", made / "store", "--split", "time:0.2"]
    with mock.patch.object(measure, "make_lists", side_effect=real) as ranked:
        plain = good("evaluate", *where)
        once = ranked.call_count
        drawn = good("evaluate", *where, "--html", tmp_path / "page.html")
        assert ranked.call_count == 2 * once > 0
    assert drawn == plain
    assert np.isfinite(plain["metrics"]["ndcg@10"])
    assert "95 % interval" in (tmp_path / "page.html").read_text("utf-8")
