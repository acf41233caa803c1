from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from danlu.audit.aligned import Pair
from danlu.audit.merging import Merge, decompose

Tensors = dict[str, torch.Tensor]
NAMES = [f"blocks.{block}.feedforward.{name}.weight" for block in range(4) for name in ("gate", "up", "down")]


def model(seed: int, near: Tensors | None = None) -> Tensors:
    draw = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(48, 32, generator=draw) for name in NAMES}
    return drawn if near is None else {name: near[name] + 0.2 * drawn[name] for name in NAMES}


def slerp(one: torch.Tensor, two: torch.Tensor, at: float) -> torch.Tensor:
    angle = torch.acos((one * two).sum() / (one.norm() * two.norm()))
    return (torch.sin((1 - at) * angle) * one + torch.sin(at * angle) * two) / torch.sin(angle)


def ties(base: torch.Tensor, tasks: list[torch.Tensor], weights: list[float], density: float = 0.5) -> torch.Tensor:
    """Trim, elect signs, merge what agrees (Yadav et al., 2023), weighted."""
    trimmed = []
    for task in tasks:
        least = task.abs().flatten().kthvalue(int((1 - density) * task.numel())).values
        trimmed.append(torch.where(task.abs() > least, task, 0.0))
    weighted = torch.stack([weight * task for weight, task in zip(weights, trimmed, strict=True)])
    sign = weighted.sum(0).sign()
    kept = (weighted.sign() == sign) & (weighted != 0)
    shares = torch.tensor(weights)[:, None, None] * kept
    return base + (weighted * kept).sum(0) / shares.sum(0).clamp(min=1e-9)


def pairs(suspect: Tensors, parents: list[Tensors]) -> Iterator[list[Pair]]:
    for name in NAMES:
        yield [Pair(name, "feed-forward", suspect[name], parent[name], None, True) for parent in parents]


def merged(suspect: Tensors, parents: list[Tensors]) -> Merge:
    found = decompose(pairs(suspect, parents), [str(number) for number in range(len(parents))])
    assert isinstance(found, Merge), found
    return found


def linear(one: torch.Tensor, two: torch.Tensor, at: float) -> torch.Tensor:
    return (1 - at) * one + at * two


@pytest.mark.parametrize("way", [linear, slerp])
def test_weights_of_a_merge_are_found(way: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]) -> None:
    base = model(0)
    one, two = model(1, base), model(2, base)
    for weight in (0.1, 0.3, 0.5, 0.7, 0.9):
        suspect = {name: way(one[name], two[name], weight) for name in NAMES}
        found = merged(suspect, [base, one, two])
        assert found.weights[2] == pytest.approx(weight, abs=0.02)
        assert found.weights[1] == pytest.approx(1 - weight, abs=0.02)
        assert found.is_merged
        assert found.left < 0.05, "of a sum along an arc a little is left"
        assert found.collinear == ()
        assert set(found.by_layer) == {"0", "1", "2", "3"}


@pytest.mark.parametrize("shares", [(0.7, 0.3), (0.5, 0.5), (0.1, 0.9), (0.5, 0.3, 0.2)])
@pytest.mark.parametrize("with_base", [True, False])
def test_weights_of_a_merge_by_elected_signs_are_found(shares: tuple[float, ...], with_base: bool) -> None:
    base = model(0)
    each = [model(number + 1, base) for number in range(len(shares))]
    suspect = {name: ties(base[name], [one[name] - base[name] for one in each], list(shares)) for name in NAMES}
    found = merged(suspect, [base, *each] if with_base else each)
    assert found.is_merged
    assert found.left > 0.01, "a merge that leaves numbers out is no weighted sum"
    assert found.agreeing is not None
    assert 0.02 < found.agreeing < 0.4
    assert found.weights == pytest.approx([0.0, *shares] if with_base else shares, abs=1e-3)
    assert all(
        low - 1e-3 <= share <= high + 1e-3 for share, (low, high) in zip(found.weights, found.intervals, strict=True)
    )


def test_numbers_that_agree_by_chance_are_no_merge_by_elected_signs() -> None:
    base = model(0)
    one, two, noise = model(1, base), model(2, base), model(5)
    for amount in (0.02, 0.05, 0.2):
        blurred = {name: 0.6 * one[name] + 0.4 * two[name] + amount * noise[name] for name in NAMES}
        assert merged(blurred, [base, one, two]).agreeing is None
    assert merged(model(3, one), [base, one, two]).agreeing is None


def test_a_model_trained_from_one_parent_is_not_merged() -> None:
    base = model(0)
    one, two = model(1, base), model(2, base)
    child = model(3, one)
    found = merged(child, [base, one, two])
    assert not found.is_merged
    assert found.weights[1] == pytest.approx(1.0, abs=0.1)
    for low, high in found.intervals[::2]:
        assert low < 0.05 < high + 0.1


def test_a_model_of_the_same_base_is_not_merged() -> None:
    base = model(0)
    found = merged(model(3, base), [model(1, base), model(2, base)])
    assert found.left == pytest.approx(0.75, abs=0.03), "no nearer to one than to the other"
    assert not found.is_merged


def test_an_unrelated_model_is_not_merged() -> None:
    base = model(0)
    assert not merged(model(9), [base, model(1, base), model(2, base)]).is_merged


def test_intervals_cover_noise() -> None:
    base = model(0)
    one, two = model(1, base), model(2, base)
    noise = model(5)
    suspect = {name: 0.6 * one[name] + 0.4 * two[name] + 0.05 * noise[name] for name in NAMES}
    found = merged(suspect, [one, two])
    low, high = found.intervals[1]
    assert low < 0.4 < high
    assert high - low < 0.1


def test_parents_that_cannot_be_told_apart_are_named() -> None:
    base = model(0)
    one = model(1, base)
    near = {name: tensor + 0.01 * model(7)[name] for name, tensor in one.items()}
    suspect = {name: 0.5 * base[name] + 0.5 * one[name] for name in NAMES}
    assert set(merged(suspect, [base, one, near]).collinear) == {"1", "2"}


def test_what_is_a_parent_itself_is_said_to_be() -> None:
    base = model(0)
    assert isinstance(decompose(pairs(base, [base, model(1, base)]), ["a", "b"]), str)
