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
