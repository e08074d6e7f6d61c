"""Validation parts, and what check_split and evaluate say of overlap and of leaks in time."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import dasrec
from dasrec import ImplicitALS, InputError, Interactions, LeakageWarning, MismatchError, Popular
from dasrec.cli import main
from dasrec.datasets import simulate_events
from dasrec.split import After, Between, Split
from tests import references_split as twins
from tests.test_split import pairs, table_of
from tests.test_split_twins import SEED, TWINS, assert_split_as, logs, write

ignore_leaks = pytest.mark.filterwarnings("ignore::dasrec.LeakageWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    log = simulate_events(3_000, n_users=90, n_items=50, rng=2)
    events = dasrec.read_events(log, user="user", item="item", value="value", timestamp="timestamp")
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 300):
        made = dasrec.write_interactions(events, tmp_path_factory.mktemp("check") / "store")
    assert len(made.cuts("user_items")) > 4
    return made


@pytest.fixture(scope="module")
def untimed(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    return dasrec.interactions_from_scipy(np.eye(6), tmp_path_factory.mktemp("untimed") / "store")


def figures(split: Split, part: str = "test") -> dict[str, Any]:
    """Return what is checked of one part, but for the moments."""
    found = dasrec.check_split(split).sel(part=part)
    moments = ("newest_train", "oldest_test")
    return {str(name): found[name].item() for name in found.data_vars if name not in moments}


# -- validation parts ------------------------------------------------------------------------------


@ignore_leaks
@settings(max_examples=25)
@given(
    table=logs(),
    cells=st.integers(1, 6),
    outer=st.sampled_from([text for text in TWINS if "rolling" not in text]),
    inner=st.sampled_from([text for text in TWINS if not text.startswith(("time:0", "rolling"))]),
)
def test_a_part_is_split_and_checked_as_by_the_twins(
    table: pd.DataFrame, cells: int, outer: str, inner: str
) -> None:
    """Also with the seed that it was drawn with."""
    random = ("random", "fold", "users", "any")
    with tempfile.TemporaryDirectory() as folder:
        made = write(folder, table, cells=cells)
        assert len(made.cuts("user_items")) > 2
        whole = table_of(made)
        split = dasrec.parse_split(made, f"{outer},{inner}", rng=SEED)
        parts = TWINS[outer](whole)
        assert_split_as(split, whole, parts)
        again = outer.startswith(random) and inner.startswith(random)
        with mock.patch("tests.test_split_twins.SEED", twins.next_seed(SEED) if again else SEED):
            own = TWINS[inner](whole[parts.train])
        assert split.validation is not None
        assert_split_as(split.validation, whole[parts.train], own)
        within = twins.Parts(
            *(
                None if part is None else part.reindex(whole.index, fill_value=False)
                for part in (own.train, own.test, own.fold_in)
            )
        )
        for name, ours, other in (("test", parts, within), ("validation", within, parts)):
            expected = twins.check(whole, ours, other.test)
            assert figures(split, name) == pytest.approx(expected, nan_ok=True), name
            assert expected["overlap"] == 0


@ignore_leaks
@pytest.mark.parametrize("text", ["random:0.3", "users:0.3", "any:2", "fold:1/3"])
def test_one_seed_serves_both_splits(data: Interactions, text: str) -> None:
    split = dasrec.parse_split(data, f"{text},{text}", rng=4)
    assert split.validation is not None
    assert split.seed == split.validation.seed == 4
    sizes = [len(table_of(view)) for view in (split.test, split.validation.test)]
    assert 0.4 < sizes[1] / sizes[0] < 1.5
    assert split == dasrec.parse_split(data, f"{text},{text}", rng=split.seed)
    assert len({*map(str, (mask.describe()["seed"] for mask in split.validation.test.masks))}) == 2


def test_a_validation_part_is_a_split_of_the_training_part(data: Interactions) -> None:
    outer = dasrec.split_by_time(data, 0.2)
    inner = dasrec.split_random(outer.train, 0.2, rng=1)
    split = outer.with_validation(inner)
    assert split.spec == "time:0.2,random:0.2"
    assert split.validation is not None
    assert split.validation.spec == "time:0.2,random:0.2 (validation)"
    assert split.validation.train == inner.train
    assert (split.train, split.test) == (outer.train, outer.test)
    parts = [pairs(view) for view in (inner.train, inner.test, outer.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == data.n_stored
    for other in (dasrec.split_random(data, 0.2, rng=1), dasrec.split_random(outer.test, rng=1)):
        with pytest.raises(MismatchError, match="is no split of the training part of"):
            outer.with_validation(other)
    for one, two in ((split, inner), (outer, split)):
        with pytest.raises(InputError, match="has a validation part already; expected neither"):
            one.with_validation(two)


def test_a_split_is_transformed_with_its_validation_part(data: Interactions) -> None:
    split = dasrec.parse_split(data, "time:0.2,random:0.2", rng=1).transform(dasrec.Log1p())
    assert split.validation is not None
    plain = data.to_scipy().toarray()
    for view in (split.train, split.validation.train, split.validation.test):
        weights = view.to_scipy().tocoo()
        expected = np.log1p(plain[weights.row, weights.col])
        assert weights.data == pytest.approx(expected, rel=1e-6)
    unchanged = dasrec.split_by_time(data, 0.2).transform(dasrec.Log1p())
    assert unchanged.validation is None


def test_a_model_chosen_on_the_validation_part_is_tested(data: Interactions) -> None:
    """It has seen a part of the training part, so nothing of what is tested."""
    split = dasrec.parse_split(data, "time:0.2,random:0.2", rng=1)
    assert split.validation is not None
    monitor = dasrec.holdout(split.validation, "ndcg@5")
    model = ImplicitALS(factors=4, iterations=4, rng=0)
    model.fit(split.validation.train, training=dasrec.Training(monitor=monitor, patience=2))
    chosen = dasrec.evaluate(model, split.validation, n=5)
    assert chosen.attrs["split"] == "time:0.2,random:0.2 (validation)"
    assert chosen["ndcg"].item() == pytest.approx(model.history_["monitor"].max().item(), rel=1e-6)
    tested = dasrec.evaluate(model, split, n=5)
    assert tested.attrs["n_test"] == len(table_of(split.test))
    again = Popular().fit(split.train)
    assert dasrec.evaluate(again, split).attrs["n_test"] == tested.attrs["n_test"]
    for fitted, on in ((again, split.validation), (Popular().fit(split.test), split)):
        with pytest.raises(MismatchError, match="it may know what is tested"):
            dasrec.evaluate(fitted, on)


# -- leaks -----------------------------------------------------------------------------------------


DAYS = {text: twin for text, twin in TWINS.items() if not text.startswith("rolling")} | {
    "rolling:2/3:7D:gap=1D:train=30D": lambda table: twins.rolling(
        table, (2, 3), "7D", gap="1D", train="30D"
    )
}


@ignore_leaks
@pytest.mark.parametrize("text", DAYS)
def test_leaks_are_counted_as_by_the_twin(data: Interactions, text: str) -> None:
    whole, split = table_of(data), dasrec.parse_split(data, text, rng=SEED)
    parts = DAYS[text](whole)
    expected = twins.check(whole, parts)
    assert figures(split) == pytest.approx(expected, nan_ok=True)
    found = dasrec.check_split(split).sel(part="test")
    for name, marked, pick in (
        ("newest_train", parts.train, max),
        ("oldest_test", parts.test, min),
    ):
        times = whole["time"][marked].tolist()
        moment = np.datetime64(pick(times), "us") if times else np.datetime64("NaT", "us")
        assert str(found[name].values) == str(moment)
    assert (found["leakage"].item() > 0) == bool(split.leaks_time and expected["n_train"])


def test_equal_times_are_no_leak(tmp_path: Path) -> None:
    """Neither within a block nor between blocks."""
    cells = pd.DataFrame(np.argwhere(np.ones((8, 6))), columns=["user", "item"])
    made = write(tmp_path, cells.assign(time=cells.sum(axis=1) % 4), cells=5)
    assert len(made.cuts("user_items")) == 9
    whole, found = table_of(made), figures(dasrec.split_random(made, 0.3, rng=SEED))
    assert found == pytest.approx(twins.check(whole, twins.at_random(whole, 0, 0.3, SEED)))
    assert 0.5 < found["leakage"] < 0.9


def test_masks_tell_whether_time_leaks(data: Interactions, untimed: Interactions) -> None:
    rolling = [*dasrec.split_rolling(data, 2, width="7D", gap="1D", train="20D")]
    assert [split.leaks_time for split in rolling] == [False, False]
    assert dasrec.split_by_time(data, 0.2).leaks_time is False
    assert dasrec.split_random(data, 0.2, rng=1).leaks_time is True
    assert dasrec.split_random(untimed, 0.2, rng=1).leaks_time is None
    inner = dasrec.parse_split(data, "random:0.5,time:0.2", rng=1)
    assert inner.leaks_time is True
    assert inner.validation is not None
    assert inner.validation.leaks_time is False
    cut = int(table_of(data)["time"].median())
    for mask in (After(inside=False, cut=cut), Between(inside=True, start=cut - 9, stop=cut + 1)):
        for later, leaks in ((cut, False), (cut - 1, True)):
            train, test = data.where(mask), data.where(After(inside=True, cut=later))
            assert Split("ours", train, train, test).leaks_time is leaks
    outside = data.where(Between(inside=False, start=0, stop=cut))
    assert Split("ours", outside, outside, data.where(After(inside=True, cut=cut))).leaks_time


@ignore_leaks
def test_what_was_put_together_by_hand_is_found_out(
    data: Interactions, untimed: Interactions
) -> None:
    whole = table_of(data)
    split = dasrec.split_random(data, 0.3, rng=1)
    table = twins.at_random(whole, 0, 0.3, 1)
    everything = pd.Series(data=True, index=whole.index)
    leaky = Split("ours", data, data, split.test)
    found = figures(leaky)
    assert found == pytest.approx(twins.check(whole, twins.Parts(everything, table.test)))
    assert found["overlap"] == found["n_test"] > 0
    known = Split("ours", split.train, data, split.test)
    assert figures(known)["overlap"] == found["n_test"]
    twice = Split("ours", split.train, split.train, split.test, None, split)
    for part in ("test", "validation"):
        assert figures(twice, part)["overlap"] == found["n_test"]
    mixed = Split("ours", split.train, split.train, untimed)
    with pytest.raises(MismatchError, match="the parts of ours are of different stores or versi"):
        dasrec.check_split(mixed)
    with mock.patch("dasrec.parse_split", return_value=leaky):
        result = CliRunner().invoke(main, ["split", data.url, "odd", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["parts"]["test"]["overlap"] == found["n_test"]


def test_without_times_nothing_is_said_of_them(untimed: Interactions) -> None:
    checked = dasrec.check_split(dasrec.split_random(untimed, 0.5, rng=1))
    assert checked.attrs == {"split": "random:0.5", "seed": 1}
    assert np.isnan(checked["leakage"].values).all()
    assert np.isnat(checked["newest_train"].values).all()
    assert np.isnat(checked["oldest_test"].values).all()
    n_test = checked["n_test"].item()
    assert 0 < n_test < 6
    assert checked["cold_users"].item() == checked["cold_items"].item() == n_test


def test_the_store_is_read_once_and_few_times_are_kept(data: Interactions) -> None:
    kept = {}
    for text in ("time:0.2,random:0.2", "random:0.2"):
        split = dasrec.parse_split(data, text, rng=1)
        found: list[Any] = []

        def record(
            view: Interactions, *given: Any, _real: Any = Interactions.map_blocks, **named: Any
        ) -> Any:
            found.extend(_real(view, *given, **named))  # noqa: B023
            return found  # noqa: B023

        rows = mock.patch("dasrec.interactions.store.read_rows", wraps=dasrec.store.read_rows)
        with rows as read, mock.patch.object(Interactions, "map_blocks", record):
            dasrec.check_split(split)
        assert read.call_count == len(found) == len(data.cuts("user_items")) - 1
        kept[text] = sum(len(block[-1].late) for block in found)
    assert kept["time:0.2,random:0.2"] == 0
    assert 0 < kept["random:0.2"] < 0.05 * data.n_stored


def test_last_n_warns_and_nothing_else_does(data: Interactions) -> None:
    with pytest.warns(LeakageWarning, match="last:2 trains on later moments of others") as caught:
        dasrec.split_last_n(data, 2)
    assert [each.filename for each in caught] == [__file__]
    for text in TWINS:
        if not text.startswith(("last", "rolling")):
            dasrec.parse_split(data, text, rng=1)
    [*dasrec.split_rolling(data, 2, width="7D")]


def test_evaluate_says_whether_time_leaks(data: Interactions, untimed: Interactions) -> None:
    splits = (
        (dasrec.split_by_time(data, 0.2), False),
        (dasrec.split_random(data, 0.2, rng=1), True),
        (dasrec.split_random(untimed, 0.5, rng=1), None),
    )
    for split, leaks in splits:
        measured = dasrec.evaluate(Popular().fit(split.train), split, n=1)
        assert measured.attrs.get("leaks_time") is leaks


# -- command line ----------------------------------------------------------------------------------


def test_the_command_prints_what_is_checked(data: Interactions, untimed: Interactions) -> None:
    command = ["split", data.url, "random:0.2,last:1", "--seed", "3"]
    result = CliRunner().invoke(main, [*command, "--json"])
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("Warning: last:1 trains on later moments of others")
    assert len(result.stderr.splitlines()) == 1
    record = json.loads(result.stdout)
    assert (record["split"], record["seed"], record["leaks_time"]) == (command[2], 3, True)
    with pytest.warns(LeakageWarning):
        split = dasrec.parse_split(data, command[2], rng=3)
    checked = dasrec.check_split(split)
    assert list(record["parts"]) == ["validation", "test"]
    for part, found in record["parts"].items():
        newest = str(checked.sel(part=part)["newest_train"].values.astype("datetime64[s]"))
        assert found["newest_train"] == newest
        assert list(found) == list(checked.data_vars)
        for name, value in figures(split, part).items():
            assert found[name] == value
    table = CliRunner().invoke(main, command).stdout
    assert "validation" in table
    assert all(str(name) in table for name in checked.data_vars)
    plain = CliRunner().invoke(main, ["split", untimed.url, "random:0.5", "--seed", "1", "--json"])
    assert json.loads(plain.stdout)["parts"]["test"]["leakage"] is None
    refused = CliRunner().invoke(main, ["split", untimed.url, "rolling:1/2:7D"])
    assert refused.exit_code == 1
    assert "has no timestamps; write it again from a log with a timestamp column" in refused.stderr


def test_fit_trains_and_watches_within_the_training_part(
    data: Interactions, tmp_path: Path
) -> None:
    chosen = ["--split", "time:0.2,random:0.2"]
    fit = ["fit", data.url, str(tmp_path / "model"), "--model", "implicit-als", "--factors", "3"]
    watch = ["--iterations", "3", "--monitor", "ndcg@5", *chosen, "--json"]
    result = CliRunner().invoke(main, [*fit, *watch])
    assert result.exit_code == 0, result.output
    model = dasrec.load_model(tmp_path / "model")
    seed = model.trained_on_["masks"][-1]["seed"]  # a fresh one, which the model keeps
    split = dasrec.parse_split(data, chosen[1], rng=seed)
    assert split.validation is not None
    assert dasrec.evaluate(model, split.validation, n=5)["ndcg"].item() == pytest.approx(
        json.loads(result.stdout)["monitor"][-1], rel=1e-6
    )
    measure = ["evaluate", str(tmp_path / "model"), data.url, *chosen, "--n", "5", "--json"]
    tested = CliRunner().invoke(main, measure)
    record = json.loads(tested.stdout)
    assert record["leaks_time"] is False
    assert record["n_test"] == len(table_of(split.test))
