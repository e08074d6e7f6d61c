"""What a workflow may say, and how faults in it are told: by line and column."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import dasrec
from dasrec.errors import InputError
from dasrec.models import MODELS
from dasrec.workflow import read_workflow
from dasrec.workflow.spec import Clean, Fit

TEXT = """\
name: nightly
place: out
log:
  source: [a.csv, b.csv]
  columns: {user: who, item: what}
split: time:0.2
fit:
  model: ImplicitALS
  factors: 8
  regularization: 1e-3
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    place = tmp_path / "w.yaml"
    place.write_text(TEXT)
    return str(place)


def faults_of(path: str, text: str, *changes: str) -> list[str]:
    """Return the faults of a text, without the name of the file."""
    Path(path).write_text(text)
    with pytest.raises(InputError) as raised:
        read_workflow(path, changes)
    return [line.removeprefix(f"{path}:") for line in str(raised.value).splitlines()]


def test_values_are_what_yaml_of_today_says(path: str) -> None:
    changes = ["clean.since=2026-01-31", "log.columns.timestamp=on", "fit.solver=cg", "memory=2GB"]
    workflow = read_workflow(path, changes)
    assert workflow.clean.since == "2026-01-31"
    assert workflow.log.columns.timestamp == "on"
    assert workflow.memory == "2GB"
    model = workflow.fit.make(7, factors=9)
    assert isinstance(model, dasrec.ImplicitALS)
    assert model.get_params() == {
        **dasrec.ImplicitALS(rng=7).get_params(),
        **{"factors": 9, "regularization": 1e-3, "solver": "cg"},
    }


@pytest.mark.parametrize("kind", MODELS)
def test_each_model_has_its_parameters(path: str, kind: str) -> None:
    text = TEXT[: TEXT.index("fit:")]
    for spelling in (kind, MODELS[kind].__name__):
        Path(path).write_text(f"{text}fit: {{model: {spelling}}}\n")
        made = read_workflow(path).fit.make(3)
        known = MODELS[kind]().get_params()
        assert made.get_params() == known | ({"rng": 3} if "rng" in known else {})


def test_clean_has_all_that_the_function_has() -> None:
    assert inspect.signature(dasrec.clean).parameters.keys() - {"events"} <= set(Clean.model_fields)
    assert not set(Fit.model_fields) & {n for m in MODELS.values() for n in m().get_params()}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("factors: 8", "factors: many", "9:12: fit.factors is 'many'; expected a valid integer"),
        ("factors: 8", "factors: true", "9:12: fit.factors is True; expected a valid integer"),
        ("factors: 8", "factors: 0", "9:12: factors is 0; expected a whole number, at least 1"),
        ("factors: 8", "biases: true", "9:3: fit.biases is unknown; expected one of: model, whole"),
        ("  factors: 8", "  warm: 0", "9:9: fit.warm is 0; expected greater than 0"),
        ("ImplicitALS", "Oracle", "8:10: fit.model is 'Oracle'; expected one of: 'als', 'ALS'"),
        ("  model: ImplicitALS\n", "", "7:1: fit.model is missing; expected a model"),
        ("split: time:0.2\n", "", "1:1: split is missing; expected it there"),
        ("user: who, ", "", "5:3: log.columns.user is missing; expected it there"),
        ("a.csv", "7", "4:12: log.source.0 is 7; expected a valid string"),
        ("name: nightly", "name: a/b", "1:7: name is 'a/b'; expected match pattern"),
        ("place:", "plaice:", "2:1: plaice is unknown; expected one of: name, place, cluster"),
        ("place: out", "place: out\nplace: in", "3:1: place stands there twice; expected it once"),
        ("place: out", "place: [out", "3:4: expected ',' or ']', but got"),
        ("place: out", "place: out\nclean: {min_user: 0}", "3:19: clean.min_user is 0; expected"),
        ("place: out", "place: out\npromote: {metric: gini@5}", "3:19: metric 'gini@5' is no mean"),
        ("place: out", "place: out\nevaluate: {metrics: [f7]}", "1:1: metric 'f7' is unknown"),
        ("place: out", "place: out\nsearch: {space: {factors: '1'}}", "7:8: split is 'time:0.2' a"),
        (
            "time:0.2",
            "time:0.2,last:1\nsearch: {space: {factors: 'uniform:2:1'}}",
            "7:9: 'uniform:2:1' is no distribution; expected two ends",
        ),
    ],
)
def test_a_fault_has_a_line_and_a_column(path: str, old: str, new: str, fault: str) -> None:
    assert old in TEXT
    found = faults_of(path, TEXT.replace(old, new, 1))
    assert any(each.startswith(fault) for each in found), found


def test_all_faults_are_told_in_the_order_of_the_text(path: str) -> None:
    text = TEXT.replace("nightly", "a b").replace("factors: 8", "factors: x") + "keep: 0\n"
    found = faults_of(path, text + "odd: {a: 1}\n")
    assert [each.partition(": ")[0] for each in found] == ["1:7", "9:12", "11:7", "12:1"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("fit.factors=x", "--set fit.factors: fit.factors is 'x'; expected a valid integer"),
        ("fit.factors=0", "--set fit.factors: factors is 0; expected a whole number, at least 1"),
        ("clean.odd=1", "--set clean.odd: clean.odd is unknown; expected one of: bad_rows"),
        ("split.x=1", "--set split.x: split is 'time:0.2' in "),
        ("fit.factors", "--set is 'fit.factors'; expected the path of a value and the value"),
        ("log={}", "--set log: log.source is missing; expected it there"),
        ("fit={model: popular, warm: 1}", "--set fit: warm is given for popular, which has no"),
        (
            "log.batch=2",
            "--set log.batch: batch is given for how: replace, which",
        ),
        (
            "log.weights={click: 1}",
            "--set log.weights: weights are given without",
        ),
        ("place=[", "--set place:1:2: "),
    ],
)
def test_what_is_set_is_checked_likewise(path: str, change: str, fault: str) -> None:
    (found, *_) = faults_of(path, TEXT, change)
    assert found.startswith(fault), found


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n"])
def test_what_is_no_mapping_is_refused(path: str, text: str) -> None:
    assert faults_of(path, text)[0].startswith("1:1: expected a mapping with name, place, log")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.yaml cannot be read .* a workflow in YAML"):
        read_workflow(str(tmp_path / "no.yaml"))
