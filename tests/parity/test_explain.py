"""Our integrated gradients against captum's, at the same nodes.

Weights are gradients, so they are the backward side; the gap compares answers, the forward side. Everything is float32,
and a difference the order of sums: measured are at most 4e-7, of weights up to 3.2 and of gaps up to 0.09. The
tolerances leave room for other processors.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from danlu.core.batch import Batch
from danlu.explain import gradients
from danlu.explain.attribution import explain
from danlu.explain.gradients import margin
from made_serving import made_predictor

captum = pytest.importorskip("captum.attr")

TEXT = "好棒赞的这个，了很快 ok"
N_NODES = 50


@pytest.fixture(autouse=True)
def same_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_FEWEST", "_MOST"):
        monkeypatch.setattr(gradients, name, N_NODES)


@pytest.mark.parametrize("family", ["bert", "gru"])
@pytest.mark.parametrize("label", [0, 1])
def test_of_a_text(family: str, label: int) -> None:
    predictor = made_predictor("text-classification", family)
    module = predictor.answerer.module

    def forward(tokens_BT: torch.Tensor) -> torch.Tensor:
        positions_BT = torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT)
        mask_BT = torch.ones_like(tokens_BT, dtype=torch.bool)
        rows_B = torch.arange(len(tokens_BT))
        batch = Batch(rows_B=rows_B, tokens_BT=tokens_BT, mask_BT=mask_BT, positions_BT=positions_BT)
        return margin(module(batch).logits, label)

    ids_1T = torch.from_numpy(predictor.answerer.encode([TEXT.replace("，", ",")]).ids.astype(np.int64))[None]
    reference = captum.LayerIntegratedGradients(forward, module.embedding.tokens)
    hidden_1T = torch.full_like(ids_1T, predictor.answerer.special.mask)
    expected, delta = reference.attribute(
        ids_1T, hidden_1T, n_steps=N_NODES, method="gausslegendre", return_convergence_delta=True
    )
    found = explain(predictor, TEXT, predictor.classes[label])
    weights = [span.weight for span in found.spans]
    assert len(weights) == len(TEXT)
    np.testing.assert_allclose(weights, expected.sum(2)[0].detach(), rtol=0, atol=5e-6)
    assert found.gap == pytest.approx(abs(float(delta)), abs=1e-5)


@pytest.mark.parametrize("family", ["cnn", "mlp", "vit"])
def test_of_a_picture(family: str) -> None:
    predictor = made_predictor("image-classification", family)
    module = predictor.answerer.module
    image = np.random.default_rng(1).integers(0, 256, (1, 14, 14), dtype=np.uint8)

    def forward(images_BCYX: torch.Tensor) -> torch.Tensor:
        return margin(module(Batch(rows_B=torch.arange(len(images_BCYX)), images_BCYX=images_BCYX)).logits, 1)

    asked = torch.from_numpy(image).float()[None] / 255
    expected, delta = captum.IntegratedGradients(forward).attribute(
        asked,
        asked.mean((2, 3), keepdim=True).expand_as(asked),
        n_steps=N_NODES,
        method="gausslegendre",
        return_convergence_delta=True,
    )
    found = explain(predictor, image, predictor.classes[1])
    np.testing.assert_allclose(found.weights_YX, expected.sum(1)[0].detach(), rtol=0, atol=5e-6)
    assert found.gap == pytest.approx(abs(float(delta)), abs=1e-5)
