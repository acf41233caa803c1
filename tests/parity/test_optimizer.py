"""The optimizer's step against AdamW written out, and the ensemble's weights against scikit-learn."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from danlu.model import ensemble
from danlu.train import optimizer as optimizers
from danlu.train.optimizer import OptimizerConfig, make_optimizer, orthogonalise


def test_steps_are_adamw_written_out_group_by_group() -> None:
    torch.manual_seed(0)
    config = OptimizerConfig(learning_rate=0.01, embedding_rate=0.3, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-7)
    model = nn.Sequential(nn.Embedding(6, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    optimizer = make_optimizer(model, config)
    share = {"0.weight": 0.3}
    decay = {"2.weight": 0.1}
    expected = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    first = {name: np.zeros_like(value) for name, value in expected.items()}
    second = {name: np.zeros_like(value) for name, value in expected.items()}
    for step in range(1, 6):
        rate = config.learning_rate / step
        for group in optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        optimizer.zero_grad()
        torch.autograd.backward((model(torch.randint(0, 6, (5,))) ** 2).sum())
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            gradient = parameter.grad.double().numpy()
            first[name] = 0.8 * first[name] + 0.2 * gradient
            second[name] = 0.95 * second[name] + 0.05 * gradient**2
            own = rate * share.get(name, 1.0)
            mean, square = first[name] / (1 - 0.8**step), second[name] / (1 - 0.95**step)
            expected[name] = expected[name] * (1 - own * decay.get(name, 0.0)) - own * mean / (np.sqrt(square) + 1e-7)
        optimizer.step()
        for name, parameter in model.named_parameters():
            # float32 weights of about 1 after up to five roundings; measured 1.8e-7.
            np.testing.assert_allclose(parameter.detach().numpy(), expected[name], atol=2e-6, rtol=0, err_msg=name)


def test_matrices_vectors_and_token_vectors_are_in_the_right_group_each_once() -> None:
    model = nn.Sequential(nn.Embedding(6, 4), nn.LayerNorm(4), nn.Linear(4, 3), nn.GRU(4, 4))
    config = OptimizerConfig(weight_decay=0.1, embedding_rate=0.5)
    found = {
        id(parameter): (group["weight_decay"], group["rate"])
        for group in make_optimizer(model, config).param_groups
        for parameter in group["params"]
    }
    names = {name: found.pop(id(parameter)) for name, parameter in model.named_parameters()}
    assert not found
    for name, settings in names.items():
        matrix = name in ("2.weight", "3.weight_ih_l0", "3.weight_hh_l0")
        assert settings == ((0.0, 0.5) if name == "0.weight" else (0.1 if matrix else 0.0, 1.0)), name
    frozen = nn.Linear(2, 2)
    frozen.weight.requires_grad_(False)
    assert [len(group["params"]) for group in make_optimizer(frozen, config).param_groups] == [1]


def answers(n: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of three members that know something each, and labels."""
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=n)
    log_odds = np.stack([(2 * labels - 1) * knows + rng.normal(0.2, 1.5, n) for knows in (1.2, 0.8, 0.3)])
    log_p1 = -np.logaddexp(0, -log_odds)
    return np.stack([log_p1 - log_odds, log_p1], axis=-1), labels


def test_ensemble_weights_are_a_logistic_regression_on_the_log_odds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "_RIDGE", 0.0)
    log_p_MBN, labels_B = answers()
    weights_M, bias_N = ensemble.fit_weights(log_p_MBN, labels_B)
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    reference.fit((log_p_MBN[..., 1] - log_p_MBN[..., 0]).T, labels_B)
    # Both stop near the minimum, not on it; measured 4e-6.
    np.testing.assert_allclose(weights_M, reference.coef_[0], atol=1e-4)
    np.testing.assert_allclose(bias_N[1] - bias_N[0], reference.intercept_[0], atol=1e-4)
    assert abs(bias_N.sum()) < 1e-12


def test_the_pull_to_equal_weights_moves_them_little_where_the_data_can_decide() -> None:
    log_p_MBN, labels_B = answers()
    weights_M, _ = ensemble.fit_weights(log_p_MBN, labels_B)
    reference = LogisticRegression(C=np.inf).fit((log_p_MBN[..., 1] - log_p_MBN[..., 0]).T, labels_B)
    np.testing.assert_allclose(weights_M, reference.coef_[0], atol=0.02)  # measured 0.009


def test_a_member_that_misleads_gets_no_weight_and_twins_share_theirs() -> None:
    log_p_MBN, labels_B = answers()
    wrong = log_p_MBN[:1, :, ::-1]
    weights_M, _ = ensemble.fit_weights(np.concatenate([log_p_MBN, wrong]), labels_B)
    assert weights_M[3] == 0
    assert (weights_M[:3] > 0).all()
    twins, _ = ensemble.fit_weights(np.stack([log_p_MBN[0], log_p_MBN[0]]), labels_B)
    np.testing.assert_allclose(twins[0], twins[1], atol=1e-6)


def test_muon_steps_as_torchs_muon_does_and_adamw_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "_POLYNOMIALS", ((3.4445, -4.7750, 2.0315),) * 5)  # torch's: Jordan et al., 2024
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 12), nn.Linear(12, 20), nn.LayerNorm(20), nn.Linear(20, 8, bias=False))
    twin = copy.deepcopy(model)
    config = OptimizerConfig(optimizer="muon", learning_rate=0.02, weight_decay=0.1)
    ours = make_optimizer(model, config)
    matrices = [twin[1].weight, twin[3].weight]
    rest = [parameter for parameter in twin.parameters() if all(parameter is not matrix for matrix in matrices)]
    theirs = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    others = torch.optim.AdamW(rest, lr=0.02, weight_decay=0.0, betas=config.betas, eps=config.eps)
    start = [matrix.detach().clone() for matrix in matrices]
    for step in range(4):
        for parameter, own in zip(model.parameters(), twin.parameters(), strict=True):
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 + step))
            own.grad = parameter.grad.clone()
        ours.step()
        theirs.step()
        others.step()
    for mine, own, before in zip((model[1].weight, model[3].weight), matrices, start, strict=True):
        off, moved = (mine - own).detach().norm().item(), (own - before).detach().norm().item()
        # torch iterates in bfloat16, which keeps 8 bits; measured 1.2% of the way moved, 4 steps.
        assert off / moved < 0.03
    for (name, mine), own in zip(model.named_parameters(), twin.parameters(), strict=True):
        if mine.ndim < 2 or name == "0.weight":
            torch.testing.assert_close(mine, own, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("shape", [(6, 6), (5, 17), (17, 5)])
def test_orthogonal_matrices_have_equal_singular_values_and_the_same_directions(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrices = torch.randn(3, *shape, dtype=torch.float64)
    found = orthogonalise(matrices)
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    diagonal = left.mT @ found @ right.mT
    sizes = diagonal.diagonal(dim1=1, dim2=2)
    # Every singular value lands between 0.907 and 1.093, unless it was next to nothing.
    assert bool(((sizes > 0.906) & (sizes < 1.094))[values / values.norm(dim=1, keepdim=True) > 0.02].all())
    torch.testing.assert_close(diagonal, torch.diag_embed(sizes), atol=1e-10, rtol=0)


def test_a_head_is_never_stepped_by_muon_and_resuming_needs_only_the_saved_slots() -> None:
    model = nn.Module()
    model.body, model.head = nn.Linear(6, 4), nn.Linear(4, 3)
    optimizer = make_optimizer(model, OptimizerConfig(optimizer="muon"))
    muon = [parameter for group in optimizer.param_groups if "momentum" in group for parameter in group["params"]]
    assert [parameter is model.body.weight for parameter in muon] == [True]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert set(optimizer.state[model.body.weight]) == {"momentum"}
    assert set(optimizer.state[model.head.weight]) == {"step", "exp_avg", "exp_avg_sq"}
