"""Who is not believed: the liar, and hardly ever anybody else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from danlu.improve.contradiction import LEVEL, contradicted


def world(rng: np.random.Generator, n_users: int, n_texts: int, each: int, wrong: float) -> list[tuple[int, str, str]]:
    """Honest users who answer some of the texts, and are wrong now and then; what is right is ``good``."""
    return [
        (int(text), f"user:{user}", "bad" if rng.random() < wrong else "good")
        for user in range(n_users)
        for text in rng.choice(n_texts, each, replace=False)
    ]


def users(said: list[tuple[int, str, str]]) -> set[str]:
    return {source for _, source, _ in said if source.startswith("user:")}


def found(said: list[tuple[int, str, str]], labellers: set[str] | None = None) -> set[str]:
    return set(contradicted(said, users(said), labellers or set()))


@pytest.mark.parametrize(("n_texts", "each"), [(200, 10), (40, 10), (1000, 40)], ids=["few shared", "many", "long"])
def test_honest_users_are_believed(n_texts: int, each: int):
    """With one answer in seven wrong, two of them contradict each other on a shared text in 0.24 of cases."""
    rng = np.random.default_rng(0)
    n_false = sum(bool(found(world(rng, 40, n_texts, each, 0.14))) for _ in range(500))
    assert stats.binomtest(n_false, 500, LEVEL, alternative="greater").pvalue > 0.001


def test_a_liar_is_found_beside_honest_users_and_they_are_not():
    rng = np.random.default_rng(1)
    n_found = n_wronged = 0
    for _ in range(100):
        said = world(rng, 20, 400, 20, 0.1)
        lies = [(text, "user:liar", {"good": "bad", "bad": "good"}[answer]) for text, _, answer in said[::2]]
        others = [(1000 + n, "user:liar", "good") for n in range(2 * len(lies))]  # two thirds of it nobody can check
        caught = found([*said, *lies, *others])
        n_found += "user:liar" in caught
        n_wronged += bool(caught - {"user:liar"})
    assert n_found == 100
    assert stats.binomtest(n_wronged, 100, 4 * LEVEL, alternative="greater").pvalue > 0.001


def test_who_is_copied_by_one_liar_is_no_liar():
    """All that is contradicted is contradicted by one: neither of the two is told from the other."""
    honest = [(text, "user:honest", "good") for text in range(500)]
    beside = [(1000 + text, f"user:{text % 30}", "good") for text in range(300)]
    lies = [(text, "user:liar", "bad") for text in range(500)]
    assert found([*honest, *lies, *beside]) == set()


def test_many_identities_silence_nobody_by_a_few_answers():
    honest = [(text, "user:honest", "good") for text in range(100)]
    beside = [(1000 + text, f"user:{text % 30}", "good") for text in range(300)]
    crowd = [(text, f"user:made-up-{text}", "bad") for text in range(19)]
    assert found([*honest, *beside, *crowd]) == set()
    assert "user:honest" in found([*honest, *beside, *crowd, (19, "user:made-up-19", "bad")])  # what it may cost


def test_labellers_decide_and_are_never_judged():
    """Users who agree with each other, and a labeller of another opinion."""
    said = [(text, f"user:{user}", "bad") for text in range(20) for user in range(9)]
    assert found([*said, *((text, "labeller:ann", "good") for text in range(20))], {"labeller:ann"}) == set()
    liar = [(text, "user:liar", "bad") for text in range(20)]
    right = [(text, f"user:{user}", "good") for text in range(20) for user in range(9)]
    assert found([*right, *liar, *((text, "labeller:ann", "good") for text in range(20))], {"labeller:ann"}) == {
        "user:liar"
    }


def test_who_says_everything_of_a_text_says_nothing():
    said = [(text, f"user:{text % 15}", "good") for text in range(60)]
    both = [(text, "user:both", answer) for text in range(60) for answer in ("good", "bad")]
    assert found([*said, *both]) == set()
