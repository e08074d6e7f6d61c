"""Notebooks get cards of what is known already: nothing is read, and names stay text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dasrec
from dasrec import Interactions, store
from dasrec.cards import Card, sketch_factors, sketch_line, sketch_matrix, sketch_share, told
from dasrec.datasets import simulate_events
from dasrec.models import load_model
from dasrec.scale import Sizes, Workers, plan_scale

EVIL = "</svg><script>alert(1)</script><b onmouseover=alert(1)>"


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def kinds(self) -> set[str]:
        return {tag for tag, _ in self.tags}


def page_of(shown: Any) -> _Page:
    page = _Page(shown._repr_html_())
    assert not {"script", "link", "img", "iframe"} & page.kinds
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    return page


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    events = dasrec.read_events(
        simulate_events(4_000, n_users=90, n_items=50, rng=1),
        user="user",
        item="item",
        value="value",
        timestamp="timestamp",
    )
    with mock.patch("dasrec.memory.LEAST_BLOCK_CELLS", 400):
        made = dasrec.write_interactions(events, tmp_path_factory.mktemp("cards") / "<b>store")
    assert len(made.cuts("user_items")) > 4
    return made


@pytest.fixture(scope="module")
def model(data: Interactions) -> dasrec.ImplicitALS:
    split = dasrec.split_by_time(data, 0.2)
    return dasrec.ImplicitALS(factors=4, iterations=3, rng=0).fit(split.train)


def test_a_store_shows_its_shape_density_bytes_and_blocks(data: Interactions) -> None:
    page = page_of(data)
    n_blocks = len(data.cuts("user_items")) - 1
    share = f"{100 * data.n_stored / 90 / 50:.3g} % of the cells"
    for words in ("90 users x 50 items", share, f"{data.n_stored:,}", "MB, both sides", data.url):
        assert words in page.text
    # one rectangle a block, and the frame
    assert len([tag for tag, _ in page.tags if tag == "rect"]) == n_blocks + 1
    assert f"{n_blocks} of user_items" in page.text


def test_a_part_says_that_it_is_one(data: Interactions) -> None:
    split = dasrec.split_by_time(data, 0.2)
    page = page_of(split.train)
    assert f"at most {data.n_stored:,}" in page.text
    assert re.search(r"not After\(cut=20\d\d-\d\d-\d\dT", page.text)


def test_a_split_says_what_is_tested(data: Interactions) -> None:
    split = dasrec.parse_split(data, "random:0.2,users:0.1", rng=3)
    assert repr(split) == f"<Split random:0.2,users:0.1 of 90 users x 50 items, {data.url}>"
    page = page_of(split)
    for words in ("Split random:0.2,users:0.1", "users:0.1 (validation)", "not Sampled(", "seed=3"):
        assert words in page.text, words


def test_plans_are_short_text_and_a_bar(data: Interactions) -> None:
    for plan, name in (
        (dasrec.plan_fit(data, factors=8, memory="8GB"), "FitPlan"),
        (dasrec.plan_ranking(data, factors=8, memory="8GB"), "RankPlan"),
    ):
        text = repr(plan)
        assert re.fullmatch(rf"<{name}: \d+ tasks, peak .* of 8\.00 GB>", text)
        page = page_of(plan)
        assert "peak bytes" in page.text
        assert "of 8.00 GB" in page.text
    scale = plan_scale(Sizes(10**7, 10**6, 10**9, 10**6), Workers(8))
    assert re.fullmatch(r"<ScalePlan: 1,908 tasks, peak .* of 16\.00 GB>", repr(scale))
    page = page_of(scale)
    assert "compute seconds" in page.text
    assert f"{scale.compute_seconds:.3g} s" in page.text
    log = dasrec.read_events(pd.DataFrame({"u": [EVIL], "i": ["x"]}), user="u", item="i")
    assert repr(dasrec.plan_ingest(log)).startswith("<IngestPlan: ")


def test_models_show_parameters_and_what_they_learned(
    model: dasrec.ImplicitALS, data: Interactions
) -> None:
    page = page_of(model)
    for words in ("factors=4", "90 users, 50 items", "objective, 3 iterations", "last objective"):
        assert words in page.text, words
    assert "polyline" in page.kinds
    fresh = page_of(dasrec.ALS(factors=3))
    assert "not yet" in fresh.text
    assert "svg" not in fresh.kinds
    assert "fitted on" in page_of(dasrec.Popular().fit(data)).text
    assert repr(model) == "ImplicitALS(factors=4, iterations=3, rng=0)"


def test_nothing_is_read_but_where_blocks_begin(
    data: Interactions,
    model: dasrec.ImplicitALS,
    tmp_path: Path,
    raising_scheduler: Callable[[], AbstractContextManager[Any]],
) -> None:
    saved = load_model(model.save(tmp_path / "model"))
    opened = dasrec.open_interactions(data.url)
    split = dasrec.split_random(opened, 0.2, rng=0)
    read, real = [], store._open

    def counting(group_url: str, name: str, **options: Any) -> Any:
        read.append(name)
        return real(group_url, name, **options)

    store._array.cache_clear()
    with raising_scheduler(), mock.patch.object(store, "_open", counting):
        for shown in (opened, split, saved, opened.transform(dasrec.Log1p())):
            repr(shown)
            assert read == []
        for shown in (opened, split, saved):
            page_of(shown)
    assert {*read} == {"user_items/cuts", "item_users/cuts"}
    assert "last objective" not in page_of(saved).text  # it is in the store


def test_a_card_outlives_the_store(data: Interactions, tmp_path: Path) -> None:
    place = tmp_path / "gone"
    shutil.copytree(data.url, place)
    opened = dasrec.open_interactions(place)
    shutil.rmtree(place)
    store._array.cache_clear()
    page = page_of(opened)
    assert "90 users x 50 items" in page.text
    assert "of user_items" not in page.text


def test_names_are_escaped() -> None:
    card = Card(EVIL, {EVIL: EVIL, "gone": None}, sketches=(sketch_share(1, 2, EVIL),))
    page = _Page(card.to_html())
    assert page.text.count(EVIL) == 4
    assert not {"script", "b"} & page.kinds
    assert "gone" not in page.text


def test_cards_take_the_colours_around_them() -> None:
    html = Card("x", {"a": 1}, sketches=(sketch_matrix((3, 4), [0, 1, 3]),)).to_html()
    assert "currentColor" in html
    assert not re.search(r"(background|background-color|color): *(#|white|black)", html)


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.lists(st.integers(0, 10**9), max_size=60).map(sorted),
)
def test_sketches_stay_in_their_frame(n_rows: int, n_columns: int, cuts: list[int]) -> None:
    inner = [cut for cut in cuts if cut < n_rows]
    page = _Page(sketch_matrix((n_rows, n_columns), [0, *inner, n_rows]))
    (svg,) = [attrs for tag, attrs in page.tags if tag == "svg"]
    width, height = float(svg["width"] or 0), float(svg["height"] or 0)
    assert 50 < width < 400
    assert 50 < height < 260
    boxes = [
        {key: float(attrs[key] or 0) for key in ("y", "height", "width")}
        for tag, attrs in page.tags
        if tag == "rect"
    ]
    assert len(boxes) <= 26
    blocks, frame = boxes[:-1], boxes[-1]
    assert sum(each["height"] for each in blocks) == pytest.approx(frame["height"], abs=2)
    for each in blocks:
        assert 0 <= each["y"] <= each["y"] + each["height"] <= frame["height"] + 0.3
    assert float(_Page(sketch_factors(n_rows, n_columns, 8)).tags[0][1]["width"] or 0) < 500


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 2.0]])
def test_there_is_no_line_of_less_than_two_values(values: list[float]) -> None:
    assert sketch_line(values, "x") == ""
    assert "polyline" in sketch_line([3.0, 3.0], "x")


def test_a_share_is_between_nothing_and_all() -> None:
    widths = [
        float(_Page(sketch_share(*each, "x")).tags[1][1]["width"] or 0)
        for each in ((0, 2), (1, 2), (5, 2), (1, 0))
    ]
    assert widths == [0, 95, 190, 0]


def test_masks_are_told_in_a_line() -> None:
    assert told({"mask": "Last", "inside": True, "n": 2}) == "Last(n=2)"
    assert told({"mask": "Last", "inside": False, "n": 2}) == "not Last(n=2)"
    moment = {"mask": "After", "inside": True, "cut": 10**15}
    assert told(moment) == "After(cut=2001-09-09T01:46:40)"
    assert told({"mask": "X", "long": [1, 2], "stop": 2**63 - 1}) == f"X(stop={2**63 - 1})"
