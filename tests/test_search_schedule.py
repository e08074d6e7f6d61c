"""Schedules stay within the budget, use it up, and let go on whom the papers would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec import InputError
from dasrec.search.base import Measure, Trial
from dasrec.search.schedule import cost, ladder, levels, plan_brackets, survivors
from tests import references_search as twin

MOST, ETA = st.integers(1, 100), st.integers(2, 5)


def test_the_table_of_the_paper() -> None:
    """Li et al. 2018, table 1: R = 81, eta = 3."""
    steps = levels(81, 3)
    assert steps == [1, 3, 9, 27, 81]
    table = {
        81: [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        27: [(27, 3), (9, 9), (3, 27), (1, 81)],
        9: [(9, 9), (3, 27), (1, 81)],
        6: [(6, 27), (2, 81)],
        5: [(5, 81)],
    }
    for (n, rungs), start in zip(table.items(), range(5), strict=True):
        assert list(ladder(n, steps[start:], 3)) == rungs


@given(most=MOST, eta=ETA)
def test_levels_are_those_of_the_twin(most: int, eta: int) -> None:
    assert levels(most, eta) == twin.levels(most, eta)


@given(most=MOST, eta=ETA, n=st.integers(1, 60), data=st.data())
def test_survivors_are_those_of_the_twin(most: int, eta: int, n: int, data: st.DataObject) -> None:
    """With equal metrics too."""
    steps = levels(most, eta)
    row = st.lists(st.integers(0, 5), min_size=len(steps), max_size=len(steps))
    drawn = data.draw(st.lists(row, min_size=n, max_size=n))
    table = {(t, steps[k]): float(drawn[t][k]) for t in range(n) for k in range(len(steps))}
    expected = twin.halving(list(range(n)), steps, eta, lambda t, r: table[t, r])
    rungs = ladder(n, steps, eta)
    alive = [Trial(number, 0, {}) for number in range(n)]
    for k, (iterations, numbers) in enumerate(expected):
        assert [trial.number for trial in alive] == numbers
        assert rungs[k] == (len(numbers), iterations)
        for trial in alive:
            trial.measures[iterations] = Measure(table[trial.number, iterations], 0.0)
        alive = survivors(alive, iterations, rungs[k + 1].n if k + 1 < len(rungs) else 1)
    assert cost(rungs) == twin.iterations_done(expected)


def test_what_is_no_number_goes_on_last() -> None:
    trials = [Trial(i, 0, {}, {1: Measure(m, 0.0)}) for i, m in enumerate([np.nan, -1.0, -2.0])]
    assert [trial.number for trial in survivors(trials, 1, 2)] == [1, 2]
    assert [trial.number for trial in survivors(trials[:1], 1, 1)] == [0]


@given(most=MOST, eta=ETA, budget=st.integers(1, 3000))
def test_a_halving_is_the_largest_that_can_be_paid(most: int, eta: int, budget: int) -> None:
    strategy, steps = f"halving:{eta}", levels(most, eta)
    if budget < most:
        with pytest.raises(InputError, match=f"takes at least {most}"):
            plan_brackets(strategy, most=most, budget=budget, n_grid=None)
        return
    (bracket,) = plan_brackets(strategy, most=most, budget=budget, n_grid=None)
    assert cost(bracket) <= budget < cost(ladder(bracket[0].n + 1, steps, eta))
    (grid,) = plan_brackets(strategy, most=most, budget=budget, n_grid=3)
    assert grid[0].n == min(3, bracket[0].n)


@given(most=MOST, eta=ETA, times=st.integers(1, 30), n_grid=st.none() | st.integers(1, 50))
def test_brackets_of_hyperband_share_the_budget(
    most: int, eta: int, times: int, n_grid: int | None
) -> None:
    steps = levels(most, eta)
    budget = times * most * len(steps)
    brackets = plan_brackets(f"hyperband:{eta}", most=most, budget=budget, n_grid=n_grid)
    assert sum(map(cost, brackets)) <= budget
    assert all(cost(bracket) <= budget // len(steps) for bracket in brackets)
    begun = [bracket[0].iterations for bracket in brackets]
    assert begun == steps[: len(brackets)]
    assert {bracket[-1].iterations for bracket in brackets} == {most}
    if n_grid is None:
        assert len(brackets) == len(steps)
    else:  # nothing is tried twice
        assert sum(bracket[0].n for bracket in brackets) <= n_grid


def test_random_and_grid_train_all_to_the_end() -> None:
    assert plan_brackets("random", most=10, budget=59, n_grid=None) == [((5, 10),)]
    assert plan_brackets("random", most=10, budget=59, n_grid=3) == [((3, 10),)]
    assert plan_brackets("grid", most=10, budget=None, n_grid=7) == [((7, 10),)]
    assert plan_brackets("grid", most=10, budget=70, n_grid=7) == [((7, 10),)]


@pytest.mark.parametrize(
    ("strategy", "budget", "n_grid", "message"),
    [
        ("guess", 10, 3, "strategy is 'guess'; expected one of: random, grid, halving, hyperband"),
        ("halving:1", 10, 3, "strategy is 'halving:1'"),
        ("halving:", 10, 3, "strategy is 'halving:'"),
        ("grid:3", 10, 3, "strategy is 'grid:3'"),
        ("random", None, 3, "budget is missing; random needs the iterations of all trials"),
        ("random", 8, 3, "budget is 8 iterations; random of 9 takes at least 9"),
        ("hyperband", 26, 30, "budget is 26 iterations; hyperband of 9 takes at least 27"),
        ("grid", None, None, "a grid was asked for over a distribution; expected lists of values"),
        ("grid", 20, 3, "the grid has 3 configurations of 9, which is 27"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    strategy: str, budget: int | None, n_grid: int | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan_brackets(strategy, most=9, budget=budget, n_grid=n_grid)
