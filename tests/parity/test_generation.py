"""Greedy decoding by our cache against our own pass without one, and against transformers' generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
counterparts = pytest.importorskip("counterparts")

CASES = [case for case in counterparts.CASES if case.task == counterparts.LANGUAGE]
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13], [60, 59]]
N_NEW = 16


@pytest.mark.parametrize("case", CASES, ids=str)
def test_prompts_together_are_continued_as_each_alone_by_transformers(tmp_path: Path, case: Any) -> None:
    module = counterparts.theirs(case, 4)
    ours = counterparts.ours(counterparts.save(module, tmp_path / "theirs"), case.task)
    found = counterparts.greedy(ours, PROMPTS, N_NEW)
    assert found == counterparts.their_greedy(module, PROMPTS, N_NEW)
    assert found == [uncached(ours, prompt) for prompt in PROMPTS]
    assert len({tuple(text) for text in found}) > 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_cache_gives_the_scores_of_a_whole_pass(tmp_path: Path, case: Any) -> None:
    # The largest difference measured over all cases: 4e-6, of scores up to 7; another order of sums.
    module = counterparts.theirs(case, 5)
    ours = counterparts.ours(counterparts.save(module, tmp_path / "theirs"), case.task)
    texts = counterparts.batch(61, 5, segments=False)
    lengths_B = texts.mask_BT.sum(1)
    with torch.inference_mode():
        whole_BTV = ours(texts).logits
        logits_BV, state = ours.begin(counterparts.padded(texts.tokens_BT[:, :1].tolist()), 17)
        for position in range(17):
            here_B = lengths_B > position
            torch.testing.assert_close(logits_BV[here_B], whole_BTV[here_B, position], atol=2e-5, rtol=0)
            if position < 16:
                logits_BV = ours.advance(texts.tokens_BT[:, position + 1], state)


def uncached(module: Any, prompt: list[int]) -> list[int]:
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(N_NEW):
            tokens.append(int(module(counterparts.padded([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]
