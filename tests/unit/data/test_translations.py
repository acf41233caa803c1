from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.translations import choose_translations


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=40))
def test_the_most_frequent_translation_is_chosen_the_first_on_a_tie(pairs: list[tuple[int, int]]) -> None:
    texts, targets = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    found = choose_translations(texts, targets)
    for row, (text, target) in enumerate(pairs):
        votes = Counter(other for one, other in pairs if one == text)  # in the order of first appearance
        best = max(votes, key=votes.__getitem__)
        assert found.drop[row] == (target != best)
        assert found.chosen[row] == pairs.index((text, best))
        assert (found.n_votes[row], found.n_texts[row]) == (votes[best], votes.total())
