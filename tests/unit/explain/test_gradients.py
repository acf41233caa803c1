from __future__ import annotations

import numpy as np
import pytest
import torch

from danlu.explain.gradients import integrated_gradients, margin


def test_the_margin_between_two_classes_is_the_log_odds_and_needs_no_scale():
    logits = torch.tensor([[1.0, 3.0], [0.5, -0.5]])
    p = logits.softmax(1)
    torch.testing.assert_close(margin(logits, 1), (p[:, 1] / (1 - p[:, 1])).log())
    three = np.random.default_rng(0).normal(size=(4, 3))
    log_p = three - np.log(np.exp(three).sum(1, keepdims=True))
    np.testing.assert_allclose(margin(log_p, 2), margin(three + 5, 2))
    np.testing.assert_allclose(margin(three, 2), three[:, 2] - (three[:, 0] + three[:, 1]) / 2)


def test_a_linear_score_gets_coefficient_times_step_and_a_product_is_halved():
    baseline, asked = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 2.0]])
    found = integrated_gradients(lambda x: 5 * x[:, 0, 0] - x[:, 0, 1], baseline, asked)
    np.testing.assert_allclose(found.weights, [[10, -2]], rtol=1e-6)
    found = integrated_gradients(lambda x: x[:, 0, 0] * x[:, 0, 1], torch.zeros(1, 2), asked)
    np.testing.assert_allclose(found.weights, [[3, 3]], rtol=1e-6)
    assert (found.n_nodes, found.converged) == (16, True)


def test_a_harder_line_gets_more_nodes_until_the_gap_is_small():
    found = integrated_gradients(lambda x: torch.sigmoid(300 * (x[:, 0] - 0.31)), torch.zeros(1), torch.ones(1))
    assert 16 < found.n_nodes <= 256
    assert found.gap <= 0.01


def test_a_line_with_a_step_is_said_not_to_converge():
    found = integrated_gradients(lambda x: torch.sigmoid(1e6 * (x[:, 0] - 0.3)), torch.zeros(1), torch.ones(1))
    assert (found.n_nodes, found.converged) == (256, False)
    assert found.gap == pytest.approx(abs(found.weights.sum() - 1))


def test_points_go_through_in_parts_where_they_are_large(monkeypatch):
    asked = torch.linspace(0, 1, 7)
    whole = integrated_gradients(lambda x: (x**3).sum(1), torch.zeros(7), asked)
    sizes = []

    def score(x):
        sizes.append(len(x))
        return (x**3).sum(1)

    monkeypatch.setattr("danlu.explain.gradients._AT_ONCE", 21)
    parts = integrated_gradients(score, torch.zeros(7), asked)
    assert sizes == [2, 3, 3, 3, 3, 3, 1]
    np.testing.assert_allclose(parts.weights, whole.weights, rtol=1e-6)
    np.testing.assert_allclose(whole.weights, asked.numpy() ** 3, rtol=1e-6)
