"""Words are cut and joined as Python's integers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasrec.kernels.words import join_words, split_words

LONGS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(LONGS, max_size=30), LONGS)
def test_words_are_cut_modulo_two_to_the_64(drawn: list[int], low: int) -> None:
    values = np.array(drawn, np.int64)
    words, highs = np.empty(len(drawn), np.uint32), np.empty(len(drawn), np.uint32)
    split_words(values, np.int64(low), words, highs)
    above = [(value - low) % 2**64 for value in drawn]
    assert words.tolist() == [each % 2**32 for each in above]
    assert highs.tolist() == [each >> 32 for each in above]
    assert join_words(words, highs, np.int64(low)).tolist() == drawn


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_high_word_takes_as_few_bytes_as_it_needs(kind: type[np.unsignedinteger]) -> None:
    top = 2**32 * (int(np.iinfo(kind).max) + 1) - 1
    values = np.array([-5, top - 5, 2**32], np.int64)
    words, highs = np.empty(3, np.uint32), np.empty(3, kind)
    split_words(values, np.int64(-5), words, highs)
    assert highs.tolist() == [0, np.iinfo(kind).max, 1]
    assert join_words(words, highs, np.int64(-5)).tolist() == values.tolist()
