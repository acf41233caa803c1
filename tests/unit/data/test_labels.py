from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.data.labels import OnConflict, label_conflicts

RECORDS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from("abc")), max_size=25)


@given(RECORDS, st.sampled_from(["drop", "majority", "keep"]))
def test_policies_against_counting(records: list[tuple[int, str]], policy: OnConflict) -> None:
    labels = defaultdict(Counter)  # type: ignore[var-annotated]  # of group to label to count
    for group, label in records:
        labels[group][label] += 1

    def dropped(group: int, label: str) -> bool:
        if policy == "keep" or len(labels[group]) == 1:
            return False
        (_, most), *rest = labels[group].most_common()
        return policy == "drop" or labels[group][label] < most or (bool(rest) and rest[0][1] == most)

    found = label_conflicts(np.array([g for g, _ in records], dtype=np.int64), [x for _, x in records], policy)
    assert found.drop.tolist() == [dropped(*record) for record in records]
    assert sorted(found.seen) == np.flatnonzero(found.drop).tolist()


@pytest.mark.parametrize(("policy", "kept"), [("drop", []), ("majority", [0, 2]), ("keep", [0, 1, 2])])
def test_says_which_labels_a_text_has(policy: OnConflict, kept: list[int]) -> None:
    found = label_conflicts(np.array([7, 7, 7]), ["pos", "neg", "pos"], policy)
    assert np.flatnonzero(~found.drop).tolist() == kept
    assert set(found.seen.values()) <= {"neg: 1, pos: 2"}
