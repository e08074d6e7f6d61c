"""Checks return what they checked, or say what was given and what is expected."""

from __future__ import annotations

import datetime
import re
from typing import Any

import numpy as np
import pytest

from dasrec.checks import (
    check_choice,
    check_columns,
    check_count,
    check_duration,
    check_fraction,
    check_lengths,
    check_moment,
    check_number,
    seed_of,
)
from dasrec.errors import DasrecError, InputError


def refused(message: str) -> Any:
    return pytest.raises(InputError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("given", [1, 7, np.int32(7), np.int64(7), np.uint8(7)])
def test_a_count_comes_back_as_int(given: Any) -> None:
    assert check_count(given, name="factors", most=7) == given
    assert type(check_count(given, name="factors")) is int


@pytest.mark.parametrize("given", [0, -1, 1.0, 2.5, "3", None, True, np.float32(2), float("nan")])
def test_what_is_no_count_is_refused(given: Any) -> None:
    with refused(f"factors is {given!r}; expected a whole number, at least 1"):
        check_count(given, name="factors")


def test_a_count_has_ends() -> None:
    assert check_count(0, name="n", least=0, most=0) == 0
    with refused("n is 11; expected a whole number, from 2 to 10"):
        check_count(11, name="n", least=2, most=10)


@pytest.mark.parametrize("given", [1, 0.5, np.float32(0.5), np.int64(3)])
def test_a_number_comes_back_as_float(given: Any) -> None:
    assert check_number(given, name="alpha", above=0, least=0.5) == given
    assert type(check_number(given, name="alpha")) is float


@pytest.mark.parametrize("given", [float("nan"), float("inf"), -np.inf, "1", None])
def test_what_is_no_finite_number_is_refused(given: Any) -> None:
    with refused(f"alpha is {given!r}; expected a finite number"):
        check_number(given, name="alpha")


def test_a_number_has_ends() -> None:
    with refused("alpha is 0; expected a finite number greater than 0"):
        check_number(0, name="alpha", above=0)
    with refused("alpha is -0.5; expected a finite number of at least 0"):
        check_number(-0.5, name="alpha", least=0)


@pytest.mark.parametrize("given", [0.2, 1e-9, np.float32(0.5)])
def test_a_fraction_comes_back(given: float) -> None:
    assert check_fraction(given, name="fraction") == given


@pytest.mark.parametrize("given", [0.0, 1.0, -0.1, 20, 1, "0.2", None, float("nan")])
def test_what_is_no_fraction_is_refused(given: Any) -> None:
    with refused(f"fraction is {given!r}; expected a number between 0 and 1, for instance 0.2"):
        check_fraction(given, name="fraction")


def test_a_choice_is_one_of_the_known() -> None:
    assert check_choice("s", name="unit", choices=("s", "ms")) == "s"
    with refused("unit is 'h'; expected one of: s, ms"):
        check_choice("h", name="unit", choices=("s", "ms"))


def test_missing_columns_are_named_beside_those_that_are_there() -> None:
    check_columns(["a", "b"], ["b"], where="log.csv")
    with refused("log.csv has no column 'c', 'd'; it has: 'a', 'b'"):
        check_columns(["a", "b"], ["c", "a", "d"], where="log.csv")


def test_lengths_come_back_ascending_and_once() -> None:
    assert check_lengths(5, n_items=5) == (5,)
    assert check_lengths([20, 10, np.int64(20)], n_items=30) == (10, 20)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "n is empty; expected one list length or more, for instance n=(10, 20)"),
        (0, "n is 0; expected a whole number, at least 1"),
        ([10, 2.5], "n is 2.5; expected a whole number, at least 1"),
        (31, "n is 31, but the catalogue has only 30 items; choose n <= 30"),
    ],
)
def test_lengths_that_no_list_has_are_refused(given: Any, message: str) -> None:
    with refused(message):
        check_lengths(given, n_items=30)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("1970-01-02", 86_400),
        ("1970-01-01T01:00", 3_600),
        ("1970-01-01T01:00+01:00", 0),
        (datetime.datetime(1970, 1, 1, 0, 0, 1), 1),
        (
            datetime.datetime(1970, 1, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1))),
            3_600,
        ),
    ],
)
def test_a_moment_is_utc_unless_it_says_otherwise(given: Any, seconds: int) -> None:
    assert check_moment(given, name="since") == seconds * 10**6


@pytest.mark.parametrize("given", ["soon", "", "2026-13-01", None, 5])
def test_what_is_no_moment_is_refused(given: Any) -> None:
    with refused(
        f"since is {given!r}; expected a date or time like 2026-01-31 or 2026-01-31T12:00"
    ):
        check_moment(given, name="since")


@pytest.mark.parametrize(
    ("given", "seconds"), [("7D", 604_800), ("30min", 1_800), (datetime.timedelta(hours=1), 3_600)]
)
def test_a_duration_comes_in_microseconds(given: Any, seconds: int) -> None:
    assert check_duration(given, name="width") == seconds * 10**6


@pytest.mark.parametrize("given", ["soon", "", "0s", "-1h", "10ns", "nat", None, [1]])
def test_what_is_no_duration_is_refused(given: Any) -> None:
    with refused(f'width is {given!r}; expected a time like "30min" or "7D", above 0'):
        check_duration(given, name="width")


def test_a_seed_is_itself_and_a_generator_gives_one() -> None:
    assert seed_of(7) == 7
    first, second = (seed_of(np.random.default_rng(3)) for _ in range(2))
    assert first == second
    generator = np.random.default_rng(3)
    assert seed_of(generator) != seed_of(generator)


def test_no_seed_gives_a_fresh_one_whatever_numpy_was_seeded_with() -> None:
    np.random.seed(0)
    first = seed_of(None)
    np.random.seed(0)
    assert seed_of(None) != first


def test_every_seed_fits_where_seeds_are_used() -> None:
    seeds = [seed_of(None) for _ in range(50)] + [seed_of(np.random.default_rng(1))]
    assert all(0 <= seed <= 2**62 for seed in seeds)
    assert seed_of(2**62) == 2**62


@pytest.mark.parametrize("given", [-1, 1.5, 2**62 + 1, 2**64, "7"])
def test_what_is_no_seed_is_refused(given: Any) -> None:
    with refused(f"rng is {given!r}; expected a whole number, from 0 to {2**62}"):
        seed_of(given)


def test_every_refusal_is_an_error_of_the_package_and_a_value_error() -> None:
    assert issubclass(InputError, DasrecError)
    assert issubclass(InputError, ValueError)
