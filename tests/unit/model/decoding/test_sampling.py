from __future__ import annotations

import numpy as np
import pytest
import torch

from danlu.model.decoding.sampling import draw, filtered, most_likely, penalised, uniforms

LOGITS = torch.tensor([[2.0, 1.0, 0.0, -1.0, -2.0], [0.0, 0.0, 3.0, 0.0, 0.0]])


def allowed(logits_BV: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero()[:, 0].tolist() for row in logits_BV]


def test_the_most_likely_token_is_the_first_of_the_best():
    assert most_likely(LOGITS).tolist() == [0, 2]
    assert most_likely(torch.tensor([[1.0, 3.0, 3.0], [-torch.inf, -2.0, -3.0]])).tolist() == [1, 1]


def test_a_token_that_was_seen_becomes_less_likely_whatever_its_sign():
    seen = torch.tensor([[True, False, False, True, False], [False] * 5])
    less = penalised(LOGITS, seen, 2.0)
    assert less.tolist() == [[1.0, 1.0, 0.0, -2.0, -2.0], LOGITS[1].tolist()]


def test_temperature_divides():
    assert torch.equal(filtered(LOGITS, 0.5, None, 1.0, 0.0), LOGITS * 2)


@pytest.mark.parametrize(
    ("top_k", "kept"), [(1, [[0], [2]]), (3, [[0, 1, 2], [0, 1, 2, 3, 4]]), (9, [list(range(5))] * 2)]
)
def test_top_k_keeps_the_k_most_likely_and_all_as_likely_as_the_last_of_them(top_k, kept):
    assert allowed(filtered(LOGITS, 1.0, top_k, 1.0, 0.0)) == kept


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    probabilities = torch.tensor([[0.5, 0.25, 0.15, 0.1]])
    for top_p, n_kept in ((1e-6, 1), (0.45, 1), (0.55, 2), (0.7, 2), (0.8, 3), (0.89, 3), (0.95, 4)):
        kept = filtered(probabilities.log(), 1.0, None, top_p, 0.0)
        assert allowed(kept) == [list(range(n_kept))], top_p


def test_min_p_is_a_share_of_the_likeliest():
    probabilities = torch.tensor([[0.5, 0.26, 0.14, 0.1]])
    for min_p, n_kept in ((0.1, 4), (0.25, 3), (0.5, 2), (0.53, 1), (1.0, 1)):
        assert allowed(filtered(probabilities.log(), 1.0, None, 1.0, min_p)) == [list(range(n_kept))], min_p


def test_evenly_spaced_numbers_draw_every_token_in_proportion():
    n = 20_000
    probabilities = torch.tensor([0.05, 0.0, 0.6, 0.3, 0.0, 0.05])
    even = (torch.arange(n, dtype=torch.float64) + 0.5).div(n).float()
    drawn = draw(probabilities.log().expand(n, -1), even)
    # Each border between two tokens lies within one step.
    assert np.abs(np.bincount(drawn, minlength=6) / n - probabilities.numpy()).max() <= 1.5 / n


def test_no_number_draws_a_token_that_may_not_be_drawn():
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]] * 2)
    ends = torch.tensor([0.0, np.nextafter(np.float32(1), np.float32(0))])
    assert draw(logits, ends).tolist() == [1, 2]


def test_numbers_depend_on_seed_and_prompt_alone():
    prompts = [[5, 6], [7], [5, 6], [5]]
    together = uniforms(3, prompts, 8)
    assert together.dtype == torch.float32
    assert 0 <= together.min() <= together.max() < 1
    for row in (0, 1, 3):
        assert torch.equal(together[row], uniforms(3, [prompts[row]], 8)[0])
    assert torch.equal(together[:, :5], uniforms(3, prompts, 5))
    assert len({tuple(row) for row in together.tolist()}) == 4  # the second copy of a prompt has its own
    assert not torch.equal(together, uniforms(4, prompts, 8))
