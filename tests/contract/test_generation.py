"""What every family that writes text owes the decoder: a text read token by token is the text read at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cases import CASES, MAX_LEN, Case, answers
from danlu.core.batch import Batch
from danlu.model.base import Model

GENERATING = [case for case in CASES if case.task in ("language-modelling", "translation")]
every_case = pytest.mark.parametrize("case", GENERATING, ids=str)

# The largest difference measured over all cases: 3e-6, where logits reach 4.6. A matrix product of another
# shape sums in another order; 1e-5 leaves room for another processor.
CLOSE = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def prompts(batch: Batch, lengths: list[int]) -> Batch:
    """The first tokens of each text, and no more than it has."""
    tokens_BT, mask_BT, positions_BT = batch.text
    width = max(lengths)
    mask_BT = mask_BT & (torch.arange(tokens_BT.shape[1]) < torch.tensor(lengths)[:, None])
    parts = {"tokens_BT": tokens_BT, "mask_BT": mask_BT, "positions_BT": positions_BT}
    return replace(batch, targets_BT=None, **{name: part[:, :width] for name, part in parts.items()})


def ragged(batch: Batch) -> list[int]:
    """Prompts of one token, of two, ... of all."""
    n_tokens = batch.text[1].sum(1).tolist()
    return [min(n, 1 + 3 * row) for row, n in enumerate(n_tokens)]


def begun(case: Case, module: Model, lengths: list[int], max_len: int = MAX_LEN):
    return module.begin(prompts(case.batch(), lengths), max_len)


@every_case
def test_prompts_of_any_length_go_on_as_the_whole_text_does(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    whole, lengths = answers(module, batch), ragged(batch)
    assert len(set(lengths)) > 5
    logits_BV, state = begun(case, module, lengths)
    rows_B, n_compared = torch.arange(len(lengths)), 0
    while len(rows_B):
        for row, n_read, logits_V in zip(rows_B.tolist(), state.lengths_B.tolist(), logits_BV, strict=True):
            torch.testing.assert_close(logits_V, whole[row][n_read - 1], **CLOSE)
            n_compared += 1
        going_on = state.lengths_B < batch.text[1].sum(1)[rows_B]
        rows_B, state = rows_B[going_on], state.select(going_on.nonzero()[:, 0])
        if len(rows_B):
            before_B = state.lengths_B.clone()
            logits_BV = module.advance(batch.text[0][rows_B, state.lengths_B], state)
            assert torch.equal(state.lengths_B, before_B + 1)
    assert n_compared == int((batch.text[1].sum(1) - torch.tensor(lengths) + 1).sum())


@every_case
def test_what_a_text_that_has_ended_is_given_does_not_change_the_others(case: Case) -> None:
    module, lengths = case.module().eval(), [2] * len(case.batch().rows_B)
    found = []
    for token in (25, 40):
        _, state = begun(case, module, lengths)
        next_B = torch.arange(len(lengths)) + 20
        next_B[0] = token
        found.append([module.advance(next_B, state) for _ in range(4)])
    for mine, other in zip(*found, strict=True):
        assert torch.equal(mine[1:], other[1:])
        assert not torch.equal(mine[0], other[0])


@every_case
def test_a_text_may_fill_all_the_room_that_was_asked_for(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    n = int(batch.text[1].sum(1).max())
    row = int(batch.text[1].sum(1).argmax())
    logits_BV, state = begun(case, module, [1] * len(batch.rows_B), max_len=n)
    for place in range(1, n):
        logits_BV = module.advance(batch.text[0][:, place], state)
    torch.testing.assert_close(logits_BV[row], answers(module, batch)[row][n - 1], **CLOSE)


@every_case
def test_rows_of_a_state_can_be_dropped_and_repeated(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    lengths = ragged(batch)
    rows_B = torch.tensor([5, 1, 1, 8])
    next_B = torch.arange(len(lengths)) + 20
    _, state = begun(case, module, lengths)
    chosen = state.select(rows_B)
    assert torch.equal(chosen.lengths_B, state.lengths_B[rows_B])
    # The two copies of a row go different ways, and the state that they were taken from does not move.
    other_B = torch.tensor([25, 21, 70, 28])
    for step in range(3):
        mine, whole = module.advance(other_B + step, chosen), module.advance(next_B + step, state)
        torch.testing.assert_close(mine[[0, 1, 3]], whole[[5, 1, 8]], **CLOSE)
        assert not torch.allclose(mine[2], mine[1], atol=1e-3)
    _, state = begun(case, module, lengths)
    again = module.advance(next_B, state)
    _, fresh = begun(case, module, lengths)
    copy = fresh.select(torch.arange(len(lengths)))
    module.advance(next_B + 7, copy)
    torch.testing.assert_close(module.advance(next_B, fresh), again, **CLOSE)


@every_case
def test_a_state_of_one_row_and_of_none(case: Case) -> None:
    module = case.module().eval()
    _, state = begun(case, module, ragged(case.batch()))
    one = state.select(torch.tensor([3]))
    assert module.advance(torch.tensor([20]), one).shape[0] == 1
    none = one.select(torch.tensor([], dtype=torch.int64))
    assert none.lengths_B.shape == (0,)


@every_case
def test_what_comes_later_does_not_change_what_was_said_before(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    before = answers(module, batch)
    for place in (1, 7):
        later_BT = torch.arange(batch.text[0].shape[1]) >= place
        other = replace(batch, tokens_BT=batch.text[0].masked_fill(later_BT, 33))
        after = answers(module, other)
        for mine, expected in zip(after, before, strict=True):
            assert torch.equal(mine[:place], expected[:place])
        assert not torch.equal(after[0], before[0])


@every_case
def test_a_translation_follows_its_source(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    if batch.source_BS is None:
        return
    source_BS, source_mask_BS = batch.source
    changed = replace(batch, source_BS=torch.cat([source_BS[:1].masked_fill(source_mask_BS[:1], 40), source_BS[1:]]))
    before, after = answers(module, batch), answers(module, changed)
    assert not torch.allclose(after[0], before[0], atol=1e-3)
    for mine, expected in zip(after[1:], before[1:], strict=True):
        torch.testing.assert_close(mine, expected, **CLOSE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@every_case
def test_on_the_gpu_it_goes_on_as_on_the_processor(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    lengths = ragged(batch)
    logits_BV, state = begun(case, module, lengths)
    expected = [logits_BV, module.advance(logits_BV.argmax(-1), state)]
    there, on_gpu = prompts(batch, lengths).to("cuda"), module.to("cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else a GRU multiplies in 10 bits of mantissa
        logits, state = on_gpu.begin(there, MAX_LEN)
        found = [logits, on_gpu.advance(expected[0].argmax(-1).cuda(), state)]
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.cpu(), other, atol=1e-4, rtol=0)
