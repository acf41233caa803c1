from __future__ import annotations

import pytest
import torch

from danlu.model.layers.attention import slot_mask
from danlu.model.layers.cache import KeysValues, KVCache

B, H, S, K = 3, 2, 9, 4


def test_each_text_is_written_behind_what_it_has():
    cache = KVCache(2, (B, H, S, K), torch.zeros(1, dtype=torch.float64))
    expected = [[torch.zeros(H, S, K, dtype=torch.float64) for _ in range(B)] for _ in range(2)]
    n_read = [0] * B
    for n_new, steps in ((4, [4, 1, 3]), (1, [1, 1, 1]), (2, [2, 1, 2])):
        for layer in range(2):
            keys = torch.randn(B, H, n_new, K, dtype=torch.float64)
            cache.write(layer, keys, -keys)
            for row in range(B):
                expected[layer][row][:, n_read[row] : n_read[row] + n_new] = keys[row]
        # What a shorter text has behind its end is written over by what comes next.
        n_read = [n + step for n, step in zip(n_read, steps, strict=True)]
        cache.lengths_B = torch.tensor(n_read)
    for layer in range(2):
        for row in range(B):
            assert torch.equal(cache.keys[layer][row], expected[layer][row])
            assert torch.equal(cache.values[layer][row], -expected[layer][row])


def test_a_selection_is_a_copy_with_the_memory_of_its_rows():
    cache = KVCache(1, (B, H, S, K), torch.zeros(1))
    cache.write(0, torch.randn(B, H, 5, K), torch.randn(B, H, 5, K))
    cache.lengths_B = torch.tensor([5, 2, 3])
    cache.memory = [KeysValues(torch.randn(B, H, 6, K), torch.randn(B, H, 6, K))]
    cache.memory_mask = torch.rand(B, 1, 1, 6) > 0.5
    rows = torch.tensor([2, 0, 2, 2])
    chosen = cache.select(rows)
    assert chosen.lengths_B.tolist() == [3, 5, 3, 3]
    for mine, theirs in (
        (chosen.keys[0], cache.keys[0]),
        (chosen.values[0], cache.values[0]),
        (chosen.memory[0].keys, cache.memory[0].keys),
        (chosen.memory[0].values, cache.memory[0].values),
        (chosen.memory_mask, cache.memory_mask),
    ):
        assert torch.equal(mine, theirs[rows])
    before = cache.keys[0].clone()
    chosen.write(0, torch.ones(4, H, 1, K), torch.ones(4, H, 1, K))
    assert torch.equal(cache.keys[0], before)


def test_more_than_was_reserved_does_not_fit():
    cache = KVCache(1, (B, H, S, K), torch.zeros(1))
    cache.lengths_B = torch.tensor([0, S - 1, S])
    with pytest.raises(RuntimeError):
        cache.write(0, torch.ones(B, H, 1, K), torch.ones(B, H, 1, K))


def test_a_token_looks_at_the_slots_up_to_its_own():
    mask = slot_mask(torch.tensor([0, 2, 3]), 4)
    assert mask.shape == (3, 1, 1, 4)
    assert mask[:, 0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
