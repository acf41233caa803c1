from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from audit_models import derive, drawn, folder_of, permuted, rotated, trained
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.unit_order import OrderTest, compare_order, detectable, order_test
from danlu.audit.units import COMPONENTS, Units
from danlu.model.base import Model


def audited(tmp_path: Path, suspect: Model, reference: Model, component: str = "feed-forward") -> OrderTest:
    folders = [folder_of(tmp_path / name, model) for name, model in (("b", suspect), ("a", reference))]
    with Checkpoint(folders[0]) as b, Checkpoint(folders[1]) as a:
        found = order_test(b, a, component)
    assert isinstance(found, OrderTest), found
    return found


def units(draw: torch.Generator, n: int = 64) -> list[Units]:
    return [Units(F.normalize(torch.randn(1, n, 3, 32, generator=draw), dim=-1)) for _ in range(3)]


def test_p_is_uniform_where_nothing_is_shared() -> None:
    draw = torch.Generator().manual_seed(1)
    found = [compare_order(units(draw), units(draw), {}, n_orders=199) for _ in range(200)]
    assert stats.kstest([test.p for test in found], "uniform").pvalue > 0.01
    z = np.array([test.z for test in found])
    assert abs(z.mean()) < 0.25
    assert 0.8 < z.std() < 1.2


def test_units_that_are_alike_in_every_model_do_not_convict() -> None:
    """What training leads all models to, at places that chance decides."""
    draw = torch.Generator().manual_seed(2)
    common = units(draw)

    def model() -> list[Units]:
        own = units(draw)
        shared = [u.vectors[:, torch.randperm(64, generator=draw)][:, :20] for u in common]
        mixed = [torch.cat([s, u.vectors[:, 20:]], 1) for s, u in zip(shared, own, strict=True)]
        return [Units(m[:, torch.randperm(64, generator=draw)]) for m in mixed]

    found = [compare_order(model(), model(), {}, n_orders=199).p for _ in range(100)]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_model_trained_further_is_found_and_another_start_is_not(tmp_path: Path, component: str) -> None:
    reference = trained(drawn("a"), 1.0, 1)
    child = trained(derive(lambda _: None, reference), 1.0, 2)
    other = trained(drawn("b"), 1.0, 3)
    found = audited(tmp_path / "child", child, reference, component)
    assert found.p == 1 / (found.n_orders + 1)
    assert found.basis == "same"
    assert found.layer_map == (0, 1, 2)
    assert audited(tmp_path / "other", other, reference, component).p > 0.01


def test_a_rotation_with_folded_gains_hides_nothing(tmp_path: Path) -> None:
    reference = trained(drawn("a"), 1.0, 1)
    hidden = derive(rotated, trained(derive(lambda _: None, reference), 0.5, 2))
    found = audited(tmp_path, hidden, reference)
    assert found.basis == "tokens"
    assert found.p == 1 / (found.n_orders + 1)
    plain = trained(derive(lambda _: None, reference), 0.5, 2)
    assert found.z == pytest.approx(audited(tmp_path / "plain", plain, reference).z, rel=0.02)


def test_token_vectors_learnt_anew_hide_nothing(tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        rotated(tensors)
        tensors["embedding.tokens.weight"] = torch.randn(tensors["embedding.tokens.weight"].shape)

    reference = trained(drawn("a"), 1.0, 1)
    found = audited(tmp_path, derive(change, reference), reference)
    assert found.basis == "units"
    assert found.p == 1 / (found.n_orders + 1)


def test_blocks_that_were_repeated_or_taken_out_are_mapped(tmp_path: Path) -> None:
    reference = trained(drawn("a"), 1.0, 1)
    suspect = trained(drawn("b", n_layers=4), 1.0, 2)
    origins = (0, 1, 1, 2)
    tensors = suspect.state_dict()
    for block, origin in enumerate(origins):
        for name, tensor in reference.state_dict().items():
            if name.startswith(f"blocks.{origin}."):
                tensors[name.replace(f"blocks.{origin}.", f"blocks.{block}.")] = tensor
    suspect.load_state_dict(tensors)
    found = audited(tmp_path, suspect, reference)
    assert found.layer_map == origins
    assert found.p == 1 / (found.n_orders + 1)


def test_another_order_of_units_is_another_test_s_affair(tmp_path: Path) -> None:
    reference = trained(drawn("a"), 1.0, 1)
    assert audited(tmp_path, derive(permuted, reference), reference).p > 0.001


def narrowed(model: Model, rows: list[torch.Tensor]) -> Model:
    """A copy that has so many hidden units left, in the order that they had."""
    narrow = drawn("narrow", d_ff=len(rows[0]))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for block, kept in enumerate(rows):
        prefix = f"blocks.{block}.feedforward."
        for name in ("gate", "up"):
            tensors[f"{prefix}{name}.weight"] = tensors[f"{prefix}{name}.weight"][kept]
        tensors[f"{prefix}down.weight"] = tensors[f"{prefix}down.weight"][:, kept]
    narrow.load_state_dict(tensors)
    return narrow


@pytest.mark.parametrize("n_left", [72, 48])
def test_units_left_out_are_noticed_and_another_start_is_not(tmp_path: Path, n_left: int) -> None:
    reference = trained(drawn("a"), 1.0, 1)
    draw = torch.Generator().manual_seed(4)
    rows = [torch.randperm(96, generator=draw)[:n_left].sort()[0] for _ in range(3)]
    found = audited(tmp_path / "child", trained(narrowed(reference, rows), 0.3, 2), reference)
    assert (found.by, found.basis, found.layer_map) == ("likeness", "same", (0, 1, 2))
    assert found.p <= 2 / (found.n_orders + 1)
    other = audited(tmp_path / "other", trained(drawn("b", d_ff=n_left), 1.0, 3), reference)
    assert other.by == "likeness"
    assert other.p > 0.01


def test_units_left_out_of_a_turned_model_are_noticed(tmp_path: Path) -> None:
    reference = trained(drawn("a"), 1.0, 1)
    rows = [torch.arange(60)] * 3
    found = audited(tmp_path, narrowed(derive(rotated, reference), rows), reference)
    assert (found.by, found.basis) == ("likeness", "tokens")
    assert found.p <= 2e-4


def test_a_unit_put_in_front_of_all_hides_nothing(tmp_path: Path) -> None:
    """As many units as before, each of them one place further on."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for block in range(3):
            prefix = f"blocks.{block}.feedforward."
            for name in ("gate", "up"):
                tensors[f"{prefix}{name}.weight"] = tensors[f"{prefix}{name}.weight"].roll(1, 0)
            tensors[f"{prefix}down.weight"] = tensors[f"{prefix}down.weight"].roll(1, 1)

    reference = trained(drawn("a"), 1.0, 1)
    found = audited(tmp_path, derive(change, reference), reference)
    assert found.by == "likeness"
    assert found.p <= 2 / (found.n_orders + 1)


def test_heads_left_out_are_noticed() -> None:
    draw = torch.Generator().manual_seed(8)
    ours = [Units(F.normalize(torch.randn(4, 32, 3, 48, generator=draw), dim=-1)) for _ in range(2)]
    theirs = [Units(each.vectors[[0, 2]][:, :, :2]) for each in ours]
    found = compare_order(ours, theirs, {}, "values", n_orders=999)
    assert isinstance(found, OrderTest)
    assert found.by == "likeness"
    assert found.p == 1 / 1000
    unrelated = []
    for _ in range(60):
        others = [Units(F.normalize(torch.randn(2, 32, 2, 48, generator=draw), dim=-1)) for _ in range(2)]
        test = compare_order(ours, others, {}, "values", n_orders=99)
        assert isinstance(test, OrderTest)
        unrelated.append(test.p)
    assert stats.kstest(unrelated, "uniform").pvalue > 0.01


def with_common_units(draw: torch.Generator, n: int, common: list[Units], copies: bool = False) -> list[Units]:
    """A model with units that all models have; with copies, all blocks began as one."""
    made = []
    for block in common:
        own = F.normalize(torch.randn(1, n - 20, 3, 32, generator=draw), dim=-1)
        shared = block.vectors[:, torch.randperm(block.vectors.shape[1], generator=draw)[:20]]
        made.append(torch.cat([shared, own], 1)[:, torch.randperm(n, generator=draw)])
    if copies:
        made = [F.normalize(made[0] + 0.02 * torch.randn(made[0].shape, generator=draw), dim=-1) for _ in made]
    return [Units(each) for each in made]


@pytest.mark.parametrize(("n_theirs", "copies"), [(48, False), (48, True), (64, True)])
def test_p_is_uniform_whatever_all_models_have(n_theirs: int, copies: bool) -> None:
    """Of blocks with other numbers of units, and where all blocks of both began as copies of one."""
    draw = torch.Generator().manual_seed(11)
    common = units(draw)
    found = []
    for _ in range(150):
        ours, theirs = (with_common_units(draw, n, common, copies) for n in (64, n_theirs))
        test = compare_order(ours, theirs, {}, n_orders=199)
        assert isinstance(test, OrderTest)
        found.append(test)
    assert stats.kstest([test.p for test in found], "uniform").pvalue > 0.01
    assert np.std([test.z for test in found]) < 1.25, "blocks that are copies do not count as so many"


def test_what_can_be_detected_is_detected() -> None:
    draw = torch.Generator().manual_seed(3)
    n, alpha, found = 30, 1e-3, 0
    for _ in range(n):
        ours, others = units(draw), units(draw)
        tested = compare_order(ours, others, {}, n_orders=9).n_numbers
        r = 1.3 * detectable(tested, alpha)  # vectors of 32 numbers are not quite those of a normal law
        theirs = [
            Units(F.normalize(r * a.vectors + (1 - r**2) ** 0.5 * b.vectors, dim=-1))
            for a, b in zip(ours, others, strict=True)
        ]
        found += compare_order(ours, theirs, {}, n_orders=9).p_normal <= alpha
    assert found >= n - 2


def test_a_reference_whose_units_were_sorted_is_not_compared(tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        order = tensors["blocks.1.feedforward.up.weight"].norm(dim=1).argsort(descending=True)
        for name in ("gate", "up"):
            tensors[f"blocks.1.feedforward.{name}.weight"] = tensors[f"blocks.1.feedforward.{name}.weight"][order]
        tensors["blocks.1.feedforward.down.weight"] = tensors["blocks.1.feedforward.down.weight"][:, order]

    reference = derive(change, trained(drawn("a"), 1.0, 1))
    folders = [folder_of(tmp_path / name, model) for name, model in (("b", drawn("b")), ("a", reference))]
    with Checkpoint(folders[0]) as b, Checkpoint(folders[1]) as a:
        assert "by their size" in str(order_test(b, a, "feed-forward"))
        assert isinstance(order_test(a, b, "feed-forward"), OrderTest), "what was done to the suspect does not matter"
