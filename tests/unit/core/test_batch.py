"""What passes through a model."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from danlu.core.batch import Batch


def batch() -> Batch:
    tokens_BT = torch.tensor([[1, 2], [3, 0]])
    return Batch(
        rows_B=torch.tensor([0, 1]), tokens_BT=tokens_BT, mask_BT=tokens_BT > 0, positions_BT=torch.tensor([[0, 1]] * 2)
    )


def test_every_tensor_moves_and_what_is_absent_stays_absent() -> None:
    moved = batch().to("meta")
    present = [item.name for item in dataclasses.fields(moved) if getattr(moved, item.name) is not None]
    assert present == ["rows_B", "tokens_BT", "mask_BT", "positions_BT"]
    assert {getattr(moved, name).device.type for name in present} == {"meta"}
    labelled = dataclasses.replace(batch(), labels_B=torch.tensor([0, 1])).to("meta")
    assert labelled.labels_B is not None
    assert labelled.labels_B.device.type == "meta"


def test_a_batch_does_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch().rows_B = torch.tensor([1])  # type: ignore[misc]  # this is what must not work


def test_what_a_batch_lacks_is_said() -> None:
    pictures = Batch(rows_B=torch.arange(3), images_BCYX=torch.zeros(3, 1, 2, 2))
    assert pictures.images.shape == (3, 1, 2, 2)
    for name, message in (("text", "no text"), ("source", "nothing to translate"), ("targets", "asks for no token")):
        with pytest.raises(AssertionError, match=message):
            getattr(pictures, name)
    with pytest.raises(AssertionError, match="no pictures"):
        _ = batch().images
    assert [part.shape for part in batch().text] == [(2, 2)] * 3


def test_tokens_of_all_texts_are_counted_and_a_picture_as_one() -> None:
    assert batch().count() == (3, 4)
    source_mask_BS = torch.tensor([[True, True, True], [True, False, False]])
    pairs = dataclasses.replace(batch(), source_BS=torch.zeros(2, 3, dtype=torch.int64), source_mask_BS=source_mask_BS)
    assert pairs.count() == (7, 10)
    assert Batch(rows_B=torch.arange(3), images_BCYX=torch.zeros(3, 1, 2, 2)).count() == (3, 3)


def test_what_is_pinned_repeats_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor that is one row many times, as positions are, cannot be copied into memory of its own as it lies."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    tokens_BT = torch.ones(3, 4, dtype=torch.int64)
    batch = Batch(rows_B=torch.arange(3), tokens_BT=tokens_BT, positions_BT=torch.arange(4).expand(3, -1))
    pinned = batch.pinned()
    assert pinned.positions_BT is not None
    assert pinned.positions_BT.is_contiguous()
    assert torch.equal(pinned.positions_BT, torch.arange(4).expand(3, -1))
