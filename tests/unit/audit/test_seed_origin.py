from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from scipy import stats

from audit_models import L, derive, drawn, folder_of, permuted, rotated, trained
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.seed_origin import SeedTest, seed_test
from danlu.audit.verdict import SMALLEST_P
from danlu.core.seeds import Seeds
from danlu.model.base import Model, Signature
from danlu.model.gru import Gru, GruConfig
from danlu.model.init import initialise

Tensors = dict[str, torch.Tensor]


def compared(suspect: Path, start: Model, seed: str, drawn_tokens: bool = True) -> SeedTest | str:
    with Checkpoint(suspect) as found:
        return seed_test(found, start, Seeds.new(seed), found, drawn_tokens)


def both(tensors: Tensors) -> None:
    permuted(tensors)
    rotated(tensors)


@pytest.mark.parametrize("hide", [lambda _: None, both])
def test_p_is_uniform_over_seeds_that_were_never_used(tmp_path: Path, hide: Callable[[Tensors], None]) -> None:
    suspect = folder_of(tmp_path / "b", derive(hide, trained(drawn("b"), 1.0, 1)))
    found = [compared(suspect, drawn("a"), f"unused {n}") for n in range(60)]
    p = [each.p for each in found if isinstance(each, SeedTest)]
    assert len(p) == 60
    # Several ways are tried and p is so many times the best one's: nearly uniform where it is small.
    small = [each for each in p if each < 0.2]
    assert stats.binomtest(len(small), 60, 0.2).pvalue > 0.005
    assert min(p) > 1e-4


@pytest.mark.parametrize("noise", [1.0, 2.0])
def test_what_is_left_of_a_start_is_found_wherever_it_stands(tmp_path: Path, noise: float) -> None:
    kept = trained(drawn("a"), noise, 1)
    plain = compared(folder_of(tmp_path / "plain", kept), drawn("a"), "a")
    moved = compared(folder_of(tmp_path / "moved", derive(permuted, kept)), drawn("a"), "a", drawn_tokens=False)
    turned = compared(folder_of(tmp_path / "turned", derive(both, kept)), drawn("a"), "a")
    assert isinstance(plain, SeedTest)
    assert isinstance(moved, SeedTest)
    assert isinstance(turned, SeedTest)
    assert (plain.by, turned.basis) == ("places", "tokens")
    assert plain.p == moved.p == SMALLEST_P
    assert turned.p < 1e-3 / 6, "small enough among six tests"


def test_stolen_token_vectors_are_found_however_they_were_turned(tmp_path: Path) -> None:
    stolen = trained(drawn("a"), 1.0, 1).state_dict()["embedding.tokens.weight"]

    def take(tensors: Tensors) -> None:
        tensors["embedding.tokens.weight"] = stolen.clone()
        rotated(tensors)

    found = compared(folder_of(tmp_path / "b", derive(take, trained(drawn("b"), 1.0, 2))), drawn("a"), "a")
    assert isinstance(found, SeedTest)
    assert found.by == "tokens"
    assert found.p == SMALLEST_P


def test_blocks_that_were_taken_out_hide_nothing(tmp_path: Path) -> None:
    kept = trained(drawn("a"), 1.0, 1)
    short = drawn("other", n_layers=L - 1)
    tensors = {name: kept.state_dict()[name.replace("blocks.1.", "blocks.2.")] for name in short.state_dict()}
    short.load_state_dict(tensors)
    found = compared(folder_of(tmp_path / "short", derive(lambda _: None, short)), drawn("a"), "a")
    assert isinstance(found, SeedTest)
    assert found.p == SMALLEST_P


def test_families_without_blocks_are_tested_at_their_places(tmp_path: Path) -> None:
    def gru(seed: str) -> Model:
        signature = Signature(task="language-modelling", vocab_size=50)
        model = Gru(GruConfig(family="gru", d_model=16, d_hidden=16, n_layers=1, max_len=16), signature)
        initialise(model, Seeds.new(seed))
        return model

    suspect = folder_of(tmp_path / "b", trained(gru("a"), 2.0, 1), words=50)
    found, other = compared(suspect, gru("a"), "a"), compared(suspect, gru("a"), "unused")
    assert isinstance(found, SeedTest)
    assert isinstance(other, SeedTest)
    assert found.by == "places"
    assert found.p == SMALLEST_P
    assert other.p > 1e-3


def test_models_of_nothing_in_common_are_not_compared(tmp_path: Path) -> None:
    suspect = folder_of(tmp_path / "b", drawn("b", d_model=32, n_heads=2, d_ff=40, max_len=16))
    found = compared(suspect, drawn("a"), "a", drawn_tokens=False)
    assert isinstance(found, str)
