from __future__ import annotations

import numpy as np
import torch

from danlu.core.batch import NOT_PREDICTED
from danlu.core.seeds import Seeds
from danlu.data.batches import Tokens, collate
from danlu.data.tokenizer import PAD
from danlu.train.masking import hide_tokens

MASK = 4


def batch_of(n_texts=400):
    rng = np.random.default_rng(0)
    texts = [rng.integers(5, 300, rng.integers(1, 60)).tolist() for _ in range(n_texts)]
    return collate(Tokens.of(texts), np.arange(n_texts), PAD)


def hidden(batch, share=0.2, step=0, special=()):
    return hide_tokens(batch, share, MASK, Seeds.new("1").generator("augment", step), special)


def test_the_shares_are_those_asked_for():
    batch = batch_of()
    found = hidden(batch)
    asked = found.targets_BT != NOT_PREDICTED
    n, n_asked, n_hidden = (int(each.sum()) for each in (batch.mask_BT, asked, found.tokens_BT == MASK))
    # Within 5 standard errors of a share: 0.2 of the tokens, and 0.9 of these out of sight.
    assert abs(n_asked / n - 0.2) < 5 * np.sqrt(0.2 * 0.8 / n)
    assert abs(n_hidden / n_asked - 0.9) < 5 * np.sqrt(0.9 * 0.1 / n_asked)


def test_targets_are_what_the_tokens_were_and_padding_is_never_asked_for():
    batch = batch_of()
    found = hidden(batch)
    asked = found.targets_BT != NOT_PREDICTED
    assert torch.equal(found.targets_BT[asked], batch.tokens_BT[asked])
    assert not (asked & ~batch.mask_BT).any()
    assert torch.equal(found.tokens_BT[~asked], batch.tokens_BT[~asked])
    changed = found.tokens_BT != batch.tokens_BT
    assert bool((found.tokens_BT[changed] == MASK).all())
    assert bool(asked[changed].all())


def test_the_same_step_hides_the_same_tokens_and_another_step_others():
    batch = batch_of(20)
    first, again, other = (hidden(batch, step=step).targets_BT for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert MASK not in batch.tokens_BT  # the batch that came in is as it was


def test_tokens_that_are_no_text_are_never_asked_for():
    batch = batch_of()
    marks = [7, 11]
    found = hidden(batch, special=marks)
    everywhere = hidden(batch)
    is_mark = torch.isin(batch.tokens_BT, torch.tensor(marks))
    assert bool((found.targets_BT[is_mark] == NOT_PREDICTED).all())
    assert torch.equal(found.tokens_BT[is_mark], batch.tokens_BT[is_mark])
    assert torch.equal(found.targets_BT[~is_mark], everywhere.targets_BT[~is_mark])
    assert bool((everywhere.targets_BT[is_mark] != NOT_PREDICTED).any())
