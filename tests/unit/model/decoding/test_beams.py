from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from danlu.core.batch import Batch
from danlu.model.decode import prompt_batch
from danlu.model.decoding.beams import Beams, beam_search

V, END = 4, 3


@dataclass
class Told:
    """The state of a model whose scores depend on every token of the text."""

    texts: list[tuple[int, ...]]
    lengths_B: torch.Tensor

    def select(self, rows_B: torch.Tensor) -> Told:
        return Told([self.texts[row] for row in rows_B.tolist()], self.lengths_B[rows_B])


class Oracle:
    def __init__(self, n_tokens: int = V) -> None:
        self.n_tokens = n_tokens
        self.n_rows: list[int] = []

    def scores(self, text: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([self.n_tokens, *text]).normal(0, 1.5, self.n_tokens)

    def logits(self, texts: list[tuple[int, ...]]) -> torch.Tensor:
        return torch.tensor(np.stack([self.scores(text) for text in texts]), dtype=torch.float32)

    def begin(self, batch: Batch, max_len: int) -> tuple[torch.Tensor, Told]:
        tokens_BT, mask_BT, _ = batch.text
        assert max_len > tokens_BT.shape[1]
        texts = [tuple(tokens[mask].tolist()) for tokens, mask in zip(tokens_BT, mask_BT, strict=True)]
        return self.logits(texts), Told(texts, mask_BT.sum(1))

    def advance(self, tokens_B: torch.Tensor, state: Told) -> torch.Tensor:
        self.n_rows.append(len(tokens_B))
        state.texts = [(*text, token) for text, token in zip(state.texts, tokens_B.tolist(), strict=True)]
        state.lengths_B = state.lengths_B + 1
        return self.logits(state.texts)


def log_probability(oracle: Oracle, prompt: list[int], tokens: tuple[int, ...]) -> float:
    total = 0.0
    for n, token in enumerate(tokens):
        scores = oracle.scores((*prompt, *tokens[:n]))
        total += scores[token] - np.logaddexp.reduce(scores)
    return total


def all_texts(room: int) -> list[tuple[int, ...]]:
    """Every text of up to as many tokens that ends, or fills its room."""
    found = []
    for n in range(1, room + 1):
        for start in itertools.product(range(END), repeat=n - 1):
            found.append((*start, END))
            if n == room:
                found += [(*start, token) for token in range(END)]
    return found


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0])
def test_enough_beams_find_what_a_search_of_everything_finds(length_penalty):
    oracle, prompts, room = Oracle(), [[0, 1], [2], [1, 1, 2], [0]], 4
    beams = Beams(n_beams=V**room, length_penalty=length_penalty, repetition_penalty=1.0, ends=(END,))
    found = beam_search(oracle, prompt_batch(prompts, 0), beams, [room] * 4, 8)
    lengths = set()
    for prompt, hypotheses in zip(prompts, found, strict=True):
        scores = {text: log_probability(oracle, prompt, text) / len(text) ** length_penalty for text in all_texts(room)}
        ranked = sorted(scores, key=scores.__getitem__, reverse=True)
        assert [tuple(found.tokens) for found in hypotheses[:10]] == ranked[:10]
        # float32 sums of up to four terms: 5e-7 measured.
        assert hypotheses[0].score == pytest.approx(scores[ranked[0]], abs=5e-6)
        assert sum(hypotheses[0].logprobs) == pytest.approx(
            hypotheses[0].score * len(ranked[0]) ** length_penalty, abs=5e-6
        )
        lengths.add(len(ranked[0]))
    if length_penalty == 1:
        assert len(lengths) > 1  # texts of different lengths are compared


def by_the_book(oracle: Oracle, prompt: list[int], n_beams: int, length_penalty: float, room: int) -> tuple[int, ...]:
    """The same search of one prompt in plain lists."""
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[tuple[float, tuple[int, ...]]] = []
    for n in range(1, room + 1):
        longer = []
        for score, text in running:
            scores = oracle.scores((*prompt, *text))
            scores = scores - np.logaddexp.reduce(scores)
            longer += [(score + scores[token], (*text, token)) for token in range(oracle.n_tokens)]
        longer.sort(reverse=True)
        for score, text in longer[:n_beams]:
            if text[-1] == END or n == room:
                finished.append((score / n**length_penalty, text))
        finished = sorted(finished, reverse=True)[:n_beams]
        running = [(score, text) for score, text in longer[: 2 * n_beams] if text[-1] != END][:n_beams]
        if len(finished) == n_beams and running[0][0] / n**length_penalty <= finished[-1][0]:
            break
    return finished[0][1]


@pytest.mark.parametrize("n_beams", [1, 2, 4])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 1.0, 1.5])
def test_a_batch_gives_what_each_prompt_gives_by_the_book(n_beams, length_penalty):
    oracle = Oracle(11)
    prompts = [[5 + i % 5] * (1 + i % 3) + [i % 9 + 1] for i in range(20)]
    rooms = [3 + i % 6 for i in range(20)]
    beams = Beams(n_beams, length_penalty, 1.0, (END,))
    found = beam_search(oracle, prompt_batch(prompts, 0), beams, rooms, 16)
    expected = [
        by_the_book(oracle, prompt, n_beams, length_penalty, room) for prompt, room in zip(prompts, rooms, strict=True)
    ]
    assert [tuple(hypotheses[0].tokens) for hypotheses in found] == expected
    assert len(set(map(len, expected))) > 2
    assert oracle.n_rows == sorted(oracle.n_rows, reverse=True)  # a prompt that is done leaves the batch
    assert oracle.n_rows[-1] < oracle.n_rows[0] <= 20 * n_beams


def test_a_beam_is_penalised_for_the_tokens_of_its_own_text():
    class Loop(Oracle):
        def scores(self, text):
            # Token 4, unless it has been penalised; the same after every text.
            return np.where(np.arange(6) < 4, -5.0, 1.0 - 0.4 * np.arange(-4, 2)) + 0 * len(text)

    free, bound = (
        beam_search(Loop(6), prompt_batch([[0]], 0), Beams(2, 1.0, penalty, (END,)), [2], 4)[0][0]
        for penalty in (1.0, 5.0)
    )
    assert free.tokens == [4, 4]
    assert sorted(bound.tokens) == [4, 5]


def test_nothing_left_to_lengthen_ends_the_search():
    class OnlyEnd(Oracle):
        def scores(self, text):
            return np.where(np.arange(4) == END, 0.0, -np.inf) + 0 * len(text)

    oracle = OnlyEnd()
    (found,) = beam_search(oracle, prompt_batch([[0]], 0), Beams(3, 1.0, 1.0, (END,)), [50], 60)
    assert [hypothesis.tokens for hypothesis in found] == [[END]]
    assert oracle.n_rows == []
