"""What the pages show runs, what they link to is there, and what they state holds."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from click.testing import CliRunner
from scipy import sparse

import dasrec
from dasrec import store
from dasrec.cli import main
from dasrec.cluster.spec import KINDS, Kubernetes, parse
from dasrec.models import MODELS
from dasrec.schema import MODEL_KIND
from dasrec.search.schedule import STRATEGIES
from dasrec.testing import planted_matrix, planted_ratings
from tests.snippets import python_blocks, run_page
from tests.test_layers import FILES, ROW_OF

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS, *sorted((ROOT / "benchmarks").glob("*.md"))]


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def section(name: str, heading: str) -> str:
    """Return what stands below a heading, up to the next one."""
    return text_of(name).split(f"\n## {heading}\n")[1].split("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of the tables in a text, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {n for n, row in enumerate(rows) if all(set(cell) <= {"-", ":"} for cell in row)}
    return [row for n, row in enumerate(rows) if n not in rules and n + 1 not in rules]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# -- examples --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of somebody who has run the Python of the README."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        first, block = python_blocks(ROOT / "README.md")
        assert len(block.splitlines()) <= 15
        names: dict[str, object] = {}
        exec(compile(block, "README.md", "exec"), names)
        exec(compile(first, "README.md", "exec"), {})
    assert isinstance(names["model"], dasrec.ImplicitALS)
    return folder


def test_the_readme_writes_lists_that_are_better_than_popularity(readers_folder: Path) -> None:
    whole = dasrec.open_interactions(readers_folder / "log.store")
    lists = pd.read_parquet(readers_folder / "lists.parquet")
    assert (lists.groupby("user_id").size() == 10).all()
    assert lists["user_id"].nunique() == whole.n_users
    split = dasrec.split_by_time(whole, 0.2)
    models = (dasrec.ImplicitALS(factors=32, rng=0), dasrec.Popular())
    ours, theirs = (
        dasrec.evaluate(model.fit(split.train), split, n=10)["ndcg"].item() for model in models
    )
    assert ours > theirs


def test_a_newcomer_has_a_plot_of_a_csv_in_under_ten_lines(readers_folder: Path) -> None:
    first, _ = python_blocks(ROOT / "README.md")
    assert len([line for line in first.splitlines() if line.strip()]) < 10
    assert first == python_blocks(ROOT / "docs" / "plots.md")[0]
    assert "Interactions of each item" in (readers_folder / "my-log.html").read_text("utf-8")


def test_the_commands_of_the_readme_run(
    readers_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readers_folder)
    (block,) = re.findall(r"```sh\n(.*?)```", section("README.md", "On the command line"), re.S)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert [command[:1] for command in commands] == [["dasrec"]] * 5
    for command in commands:
        result = CliRunner().invoke(main, command[1:])
        assert result.exit_code == 0, result.output
    assert len(pd.read_parquet("my-lists.parquet")) > 0
    assert Path("my-page.html").is_file()


def test_the_format_can_be_read_without_dasrec(
    readers_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(readers_folder)
    (block,) = python_blocks(ROOT / "docs" / "format.md")
    assert not re.search(r"^(import|from) dasrec", block, re.M)
    exec(compile(block, "format.md", "exec"), {})
    whole = dasrec.open_interactions("log.store")
    assert str((whole.n_users, whole.n_items)) in capsys.readouterr().out


def test_the_search_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("search.md")
    assert set(names["found"].best_params) == {"regularization", "factors"}
    assert 0.1 <= names["best"].best_params_["model__regularization"] <= 1
    Path("search.html").unlink()
    run_commands("docs/search.md")
    assert Path("search.html").is_file()
    rows = table_rows(section("docs/search.md", "Strategies"))
    assert [quoted(row[0])[0] for row in rows] == ["grid", "random", "halving", "hyperband"]
    assert sorted(quoted(row[0])[0] for row in rows) == sorted(STRATEGIES)


def run_commands(page: str) -> None:
    """Run the commands of a page in the current folder, as a reader would."""
    for block in re.findall(r"```sh\n(.*?)```", text_of(page), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line)
            assert program == "dasrec"
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, result.output


def test_the_commands_of_the_pages_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = dasrec.interactions_from_scipy(planted_matrix(), "my-store")
    train = dasrec.split_random(data, 0.2, rng=0).train
    dasrec.Popular().fit(train).save("popular.model")
    dasrec.ImplicitALS(factors=4, rng=0).fit(train).save("als.model")
    run_commands("docs/certainty.md")
    assert Path("page.html").is_file()
    films = pd.DataFrame({"item_id": [0, 1, 4711], "genre": ["war", "crime", "war"]})
    films.to_csv("films.csv", index=False)
    run_commands("docs/features.md")
    assert dasrec.load_model("my-model").item_feature_weights_.sizes["item_feature"] > 1


def test_the_commands_about_groups_run(
    readers_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readers_folder)
    countries = pd.DataFrame({"user_id": range(500), "group": ["se", "no"] * 250})
    countries.to_csv("countries.csv", index=False)
    fit = ["my.store", "my-model", "--model", "popular", "--split", "time:0.2", "--overwrite"]
    ingest = ["ingest", "log.csv", "my.store", "--user", "user", "--item", "item", "--overwrite"]
    for command in ([*ingest, "--timestamp", "timestamp"], ["fit", *fit]):
        assert CliRunner().invoke(main, command).exit_code == 0
    block = section("docs/metrics.md", "Groups").split("```sh\n")[1].split("```")[0]
    evaluate, draw = (shlex.split(line)[1:] for line in block.splitlines())
    *evaluate, redirect, place = ["my.store" if each == "my-store" else each for each in evaluate]
    assert redirect == ">"
    result = CliRunner().invoke(main, evaluate)
    assert result.exit_code == 0, result.output
    Path(place).write_text(result.stdout)
    assert CliRunner().invoke(main, draw).exit_code == 0
    assert "ndcg@10 by user group" in Path("page.html").read_text("utf-8")


def test_the_readme_names_what_there_is() -> None:
    readme = text_of("README.md")
    for target in re.findall(r"make ([a-z-]+)", readme):
        assert re.search(rf"^{target}:", text_of("Makefile"), re.M), target
    (listed,) = re.findall(r"Also: (.*?)\.", readme, re.S)
    shown = {"ingest", "fit", "evaluate", "recommend", "report"}
    assert shown.isdisjoint(quoted(listed))
    assert shown | set(quoted(listed)) == set(main.commands)
    kinds = [quoted(row[1])[0] for row in table_rows(section("README.md", "Which model"))]
    assert sorted(kinds) == sorted(kind.__name__ for kind in MODELS.values())


# -- links -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_page_is_linked_from_the_readme() -> None:
    readme = text_of("README.md")
    for page in DOCS:
        assert f"](docs/{page.name})" in readme, page.name
    assert "](docs/way.svg)" in readme


def test_every_file_that_a_page_names_is_there() -> None:
    named = r"`?((?:tests|docs|benchmarks|workflows|notebooks)/[\w./-]+\.\w+)"
    for page in PAGES:
        for name in re.findall(named, page.read_text("utf-8")):
            assert (ROOT / name).is_file(), f"{page.name}: {name}"


def test_every_benchmark_is_listed() -> None:
    listed = set(re.findall(r"`python (benchmarks/\w+\.py)`", text_of("benchmarks/README.md")))
    there = [
        path
        for path in (ROOT / "benchmarks").glob("*.py")
        if path.stem != "common" and "__main__" in path.read_text()
    ]
    assert listed == {str(path.relative_to(ROOT)) for path in there}


def test_the_picture_shows_every_step() -> None:
    picture = ElementTree.fromstring(text_of("docs/way.svg"))
    words = [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    steps = "logs events clean interactions split model evaluate recommend report".split()
    assert [word for word in words if word in steps] == steps
    assert "prefers-color-scheme: dark" in text_of("docs/way.svg")


def test_every_failure_has_a_test() -> None:
    rows = table_rows(text_of("docs/failures.md"))
    assert len(rows) > 25
    for row in rows:
        assert re.fullmatch(r"`(e2e/)?test_\w+\.py::test_\w+`", row[-1]), row
    for file, name in re.findall(r"`([\w/]+\.py)::(\w+)`", text_of("docs/failures.md")):
        assert re.search(rf"^def {name}\(", text_of(f"tests/{file}"), re.M), f"{file}: {name}"


def test_clusters_take_the_fields_that_the_page_says() -> None:
    page = section("docs/conventions.md", "Clusters")
    stated = {quoted(kind)[0]: quoted(fields) for kind, fields in table_rows(page)[4:-1]}
    assert stated == {
        kind: [name for name in model.model_fields if name != "kind"]
        for kind, model in KINDS.items()
    }
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.S)
    assert parse(yaml.safe_load(block)) == Kubernetes.model_validate(yaml.safe_load(block))


# -- statements ------------------------------------------------------------------------------------


def test_the_rooms_are_those_of_the_layers() -> None:
    """Each once, and none below one of a later row."""
    (block,) = re.findall(r"```\n(errors.*?)```", text_of("docs/design.md"), re.S)
    rooms = [
        room.rstrip("/")
        for line in block.splitlines()
        for room in line[: line.index("    ")].split()
    ]
    built = {name.split(".")[0] for name in FILES} - {""}
    assert sorted(rooms) == sorted(built & set(ROW_OF))
    order = [ROW_OF[room] for room in rooms]
    assert order == sorted(order)


@pytest.mark.filterwarnings("ignore::dasrec.LeakageWarning")
def test_splits_are_spelled_as_the_page_says(tmp_path: Path) -> None:
    page = section("docs/conventions.md", "Splits")
    rows = [row for row in table_rows(page) if len(row) == 3]
    spelled = {quoted(text)[0]: quoted(name)[0] for text, name, _ in rows if text}
    kinds = ["time", "random", "time", "rolling", "last", "any", "users", "fold"]
    assert [text.partition(":")[0] for text in spelled] == kinds
    log = pd.DataFrame({"u": np.repeat(np.arange(20), 5), "i": np.tile(np.arange(5), 20)})
    log["t"] = 10**6 * np.arange(len(log))
    events = dasrec.read_events(log, user="u", item="i", timestamp="t")
    whole = dasrec.write_interactions(events, tmp_path / "store")
    spelled |= {"users:0.1:0.5": "split_users", "time:0.2,last:1": "parse_split"}
    assert all(f"`{text}`" in page for text in spelled)
    figures = dasrec.check_split(dasrec.split_by_time(whole, 0.2)).data_vars
    stated = [name for row in table_rows(page) if len(row) == 2 for name in quoted(row[0])]
    assert stated == list(figures)
    for text, name in spelled.items():
        assert name in dasrec.__all__
        assert dasrec.parse_split(whole, text, rng=0).spec == text
    for name in quoted(" ".join(row[1] for row in rows)):
        assert name in dasrec.__all__


def test_events_have_the_columns_that_the_page_says() -> None:
    rows = table_rows(section("docs/conventions.md", "Events"))
    stated = {name: kind for names, kind, _ in rows for name in quoted(names)}
    log = pd.DataFrame({"u": ["007"], "i": [7], "v": [1], "t": [1]})
    events = dasrec.read_events(log, user="u", item="i", value="v", timestamp="t")
    assert list(events.frame.columns) == list(stated)
    for name, kind in events.frame.dtypes.items():
        assert str(kind) in stated[name], name


def test_the_objective_relates_to_that_of_hu_koren_and_volinsky(tmp_path: Path) -> None:
    """As docs/conventions.md states it: equal curvature, a linear term that is smaller by 1."""
    draw = np.random.default_rng(0)
    ratings = (draw.random((30, 20)) < 0.4) * draw.integers(1, 6, (30, 20)).astype(float)
    alpha, penalty = 40.0, 3.0
    data = dasrec.interactions_from_scipy(sparse.csr_array(ratings), tmp_path / "data")
    model = dasrec.ImplicitALS(
        factors=3,
        unobserved_weight=1 / alpha,
        regularization=penalty / alpha,
        regularization_exponent=0,
        iterations=2,
        rng=0,
    ).fit(data)
    items = model.item_factors_.values.astype(float)
    ours = model.fold_in(data)[:, :3]
    theirs = np.empty_like(ours)
    for user, row in enumerate(ratings):
        curvature = items.T * (1 + alpha * row) @ items + penalty * np.eye(3)
        expected = np.linalg.solve(curvature, items.T @ (alpha * row))
        assert ours[user] == pytest.approx(expected, abs=1e-4)
        theirs[user] = np.linalg.solve(curvature, items.T @ ((1 + alpha * row) * (row > 0)))
    scale = np.abs(theirs).max()
    assert 1e-3 * scale < np.abs(ours - theirs).max() < 0.1 * scale


@pytest.mark.parametrize("name", MODELS)
def test_models_store_what_the_format_states(tmp_path: Path, name: str) -> None:
    rows = table_rows(section("docs/format.md", "Models"))
    types = {}
    for arrays, kind, dims in (row for row in rows if len(row) == 3):
        names, each = quoted(arrays), [part.strip() for part in dims.split(";")]
        for number, array in enumerate(names):
            own = each[number if len(each) == len(names) else 0]
            types[array] = (kind, () if own == "none" else tuple(own.split(", ")))
    (stated,) = (quoted(row[1]) for row in rows if row[0] == f"`{name}`")
    data = dasrec.interactions_from_scipy(planted_ratings(), tmp_path / "data")
    pointer = store.read_pointer(MODELS[name]().fit(data).save(tmp_path / "model"), MODEL_KIND)
    assert sorted(pointer.facts) == ["model", "parameters", "trained_on"]
    facts = {"store", "state", "masks", "transforms", "user_hash", "item_hash"}
    assert set(pointer.facts["trained_on"]) == facts
    found = xr.open_zarr(pointer.url, group=pointer.groups[0], consolidated=False)
    assert sorted(map(str, found.data_vars)) == sorted(stated)
    for array in [*stated, "user_id", "item_id"]:
        kind, dims = types[array]
        assert found[array].dims == dims, array
        assert str(found[array].dtype) in kind, array
