"""Noise is told from what else changes a matrix: no training, rounding, pruning or merging is taken for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from danlu.audit.noise import departures, is_noise

ROWS, COLUMNS = 64, 96


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def ours() -> torch.Tensor:
    return 0.02 * normal(0, ROWS, COLUMNS)


@pytest.mark.parametrize("amount", [1e-3, 0.1, 1.0])
@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (600, 40), (40, 5000)])
def test_noise_is_named(amount: float, shape: tuple[int, int]) -> None:
    a = 0.02 * normal(1, *shape)
    assert is_noise(a + 0.02 * amount * normal(2, *shape), a)


def test_noise_departs_as_its_null_distributions_say(ours: torch.Tensor) -> None:
    found = [departures(ours + normal(number, ROWS, COLUMNS), ours) for number in range(1, 301)]
    for name in found[0]:
        z = torch.tensor([each[name] for each in found])
        assert abs(float(z.mean())) < 0.25, name
        assert 0.85 < float(z.std()) < 1.15, name


def trained(a: torch.Tensor) -> torch.Tensor:
    """A few steps of Adam on 200 examples: towards another matrix, as far as they tell of it."""
    weight = torch.nn.Parameter(a.clone())
    optimizer = torch.optim.Adam([weight], lr=1e-3)
    inputs = normal(3, 200, COLUMNS)
    aims = inputs @ (a + 0.02 * normal(4, ROWS, COLUMNS)).T
    for _ in range(5):
        optimizer.zero_grad()
        F.mse_loss(inputs @ weight.T, aims).backward()
        optimizer.step()
    return weight.detach()


def rounded(a: torch.Tensor) -> torch.Tensor:
    """To four bits in groups of 16, a grid that is not known by name."""
    groups = a.reshape(-1, 16)
    step = groups.abs().amax(1, keepdim=True) / 7
    return ((groups / step).round() * step).reshape(a.shape)


OTHERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "trained": trained,
    "rounded": rounded,
    "in few bits": lambda a: a.to(torch.float8_e5m2).float(),
    "pruned": lambda a: torch.where(a.abs() > a.abs().median(), a, 0.0),
    "shrunk": lambda a: 0.9 * a,
    "averaged with another": lambda a: (a + 0.02 * normal(5, ROWS, COLUMNS)) / 2,
    "another": lambda a: 0.02 * normal(6, *a.shape),
    "noise on some": lambda a: a + 0.01 * normal(7, ROWS, COLUMNS) * (normal(8, ROWS, COLUMNS) > 1),
    "noise by size": lambda a: a * (1 + 0.1 * normal(9, ROWS, COLUMNS)),
    "level noise": lambda a: a + 0.01 * torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(10)),
    "not at all": lambda a: a.clone(),
}


@pytest.mark.parametrize("way", OTHERS)
def test_what_is_no_noise_is_not(ours: torch.Tensor, way: str) -> None:
    assert not is_noise(OTHERS[way](ours), ours)


def test_of_few_numbers_nothing_is_said() -> None:
    a = normal(1, 31, 400)
    assert not is_noise(a + normal(2, 31, 400), a)
