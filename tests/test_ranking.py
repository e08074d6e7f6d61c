"""Ranking losses over strata: what they rank, their rules, folding in, equal bits anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import numpy as np
import pytest
from distributed import Client, get_task_stream

import dasrec
from dasrec import BPR, WARP, InputError, Interactions, Logistic, Softmax, Training
from dasrec.testing import planted_matrix
from tests.snippets import run_page

Kind = type[BPR] | type[WARP] | type[Logistic]
RATES: dict[Any, float] = {BPR: 0.1, WARP: 0.02, Logistic: 0.05, Softmax: 0.05}
ALL = pytest.mark.parametrize("kind", list(RATES))


@pytest.fixture(autouse=True)
def many_strata() -> Iterator[None]:
    with mock.patch("dasrec.strata.TASK_CELLS", 150), mock.patch("dasrec.strata.LEAST_ITEMS", 8):
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    place = tmp_path_factory.mktemp("ranking") / "data"
    return dasrec.interactions_from_scipy(planted_matrix(), place)


def small(kind: Kind, **parameters: Any) -> Any:
    return kind(**{"factors": 4, "iterations": 4, "rng": 1, **parameters})


def learned(model: Any) -> list[Any]:
    arrays = (*model.scoring_vectors(), model.history_["objective"].values)
    return [each.copy() for each in arrays]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@ALL
def test_the_loss_falls_and_seen_items_come_to_the_top(data: Interactions, kind: Kind) -> None:
    model = small(kind, iterations=40, learning_rate=RATES[kind]).fit(data)
    history = model.history_["mean_loss"].values
    assert history[-1] < 0.7 * history[0]
    assert model.history_["objective"].values == pytest.approx(history * data.n_stored)
    users, items = model.scoring_vectors()
    scores, seen = users @ items.T, data.to_scipy().toarray() > 0
    held = (seen.sum(axis=1) > 0) & (seen.sum(axis=1) < 60)
    above = [(scores[u][seen[u]][:, None] > scores[u][~seen[u]]).mean() for u in np.where(held)[0]]
    assert np.mean(above) > 0.85


def test_before_it_has_learned_the_loss_of_a_pair_is_log_2(data: Interactions) -> None:
    model = small(BPR, iterations=1, learning_rate=1e-9).fit(data)
    assert model.history_["mean_loss"].item() == pytest.approx(np.log(2), rel=1e-2)
    for kind, expected in ((Logistic, 4 * np.log(2)), (Softmax, np.log(4))):
        model = small(kind, iterations=1, learning_rate=1e-9, samples=3).fit(data)
        assert model.history_["mean_loss"].item() == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("kind", [BPR, Logistic, Softmax])
def test_how_items_are_drawn_matters(data: Interactions, kind: Kind) -> None:
    found = [
        small(kind, negatives=each).fit(data).item_factors_.values
        for each in ("uniform", "popular", "hard")
    ]
    assert not np.allclose(found[0], found[1], atol=1e-3)
    assert not np.allclose(found[0], found[2], atol=1e-3)


def test_vectors_of_warp_are_no_longer_than_they_may(data: Interactions) -> None:
    model = small(WARP, iterations=30, learning_rate=0.1, max_norm=0.5).fit(data)
    for vectors in (model.user_factors_, model.item_factors_):
        lengths = np.linalg.norm(vectors.values, axis=1)
        assert lengths.max() == pytest.approx(0.5, rel=1e-3)


@ALL
def test_items_nobody_has_come_last(data: Interactions, kind: Kind) -> None:
    model = small(kind, iterations=20, learning_rate=0.05).fit(data)
    stranger = model.recommend(data.user_ids.ids[-1:], n=60)["item_id"].values[0]
    assert stranger[-1] == data.item_ids.ids[-1] or model.item_biases_.values.argmin() in stranger
    vectors = model.scoring_vectors()[1]
    assert vectors[-1, -1] == vectors[:, -1].min()
    assert not vectors[-1, :-1].any()


@ALL
def test_who_is_folded_in_gets_a_list_of_their_own(data: Interactions, kind: Kind) -> None:
    model = small(kind, iterations=40, learning_rate=RATES[kind]).fit(data)
    users, items = model.fold_in(data), model.scoring_vectors()[1]
    assert not users[-1, :-1].any()
    lists = np.argsort(-(users[:-1] @ items.T), axis=1)[:, :8]
    own = lists % 4 == np.arange(119)[:, None] % 4
    assert own.mean() > 0.8
    assert np.array_equal(model.fold_in(data), users)


@ALL
def test_any_number_of_threads_gives_the_same_bits(data: Interactions, kind: Kind) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(small(kind).fit(data))
    for workers in (1, 4):
        with dask.config.set(scheduler="threads", num_workers=workers):
            assert same(learned(small(kind).fit(data)), alone)
    assert not same(learned(small(kind, rng=2).fit(data)), alone)


@pytest.mark.slow
@ALL
def test_processes_give_the_bits_of_threads(
    data: Interactions, cluster_client: Client, kind: Kind
) -> None:
    with dask.config.set(scheduler="synchronous"):
        alone = learned(small(kind).fit(data))
    with get_task_stream(cluster_client) as stream:
        found = learned(small(kind).fit(data))
    tasks = [task for task in stream.data if task["key"].startswith("gradient-stratum")]
    assert len({task["worker"] for task in tasks}) == 2
    assert same(found, alone)


@ALL
def test_a_stopped_fit_goes_on_with_the_same_bits(
    data: Interactions, tmp_path: Path, kind: Kind
) -> None:
    whole = small(kind, schedule="bold").fit(data)
    place = tmp_path / "checkpoint"
    small(kind, schedule="bold", iterations=2).fit(data, training=Training(checkpoint=place))
    training = Training(checkpoint=place, resume=True)
    assert same(learned(small(kind, schedule="bold").fit(data, training=training)), learned(whole))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (BPR(negatives="odd"), "negatives is 'odd'; expected one of: uniform, popular, hard"),  # type: ignore[arg-type]
        (Softmax(samples=0), "samples is 0; expected a whole number, at least 1"),
        (Logistic(negatives="odd"), "negatives is 'odd'; expected one of: uniform"),  # type: ignore[arg-type]
        (WARP(tries=0), "tries is 0; expected a whole number, at least 1"),
        (WARP(max_norm=0), "max_norm is 0; expected a finite number greater than 0"),
        (BPR(learning_rate=-1), "learning_rate is -1"),
    ],
)
def test_bad_parameters_are_refused(data: Interactions, model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        model.fit(data)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run_page("gradient.md")
    assert isinstance(names["model"], WARP)
    assert "monitor" in names["model"].history_
