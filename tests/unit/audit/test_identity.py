from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from audit_models import SIGNATURE, derive, drawn, folder_of, trained
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.content import compare_content
from danlu.audit.examine import Question, examine
from danlu.audit.identity import IdentityTest, identity_test
from danlu.audit.verdict import SMALLEST_P, Calibrated
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.model.base import Model, Signature
from danlu.model.gru import Gru, GruConfig
from danlu.model.init import initialise
from danlu.model.transformer import Transformer, TransformerConfig

Tensors = dict[str, torch.Tensor]


def gru(seed: str, **changes: object) -> Gru:
    sizes = {"d_model": 16, "d_hidden": 24, "n_layers": 2, "max_len": 16}
    model = Gru(GruConfig(family="gru", **(sizes | changes)), SIGNATURE)
    initialise(model, Seeds.new(seed))
    return model


def compared(tmp_path: Path, suspect: Model, reference: Model) -> IdentityTest:
    folders = [folder_of(tmp_path / name, model) for name, model in (("b", suspect), ("a", reference))]
    with Checkpoint(folders[0]) as b, Checkpoint(folders[1]) as a:
        found = identity_test(b, a, compare_content(b, a))
    assert isinstance(found, IdentityTest)
    return found


def test_a_model_of_no_blocks_is_convicted_by_its_bits(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / name, gru("a")) for name in ("b", "a")]
    found = examine(Question(suspect=folders[0], reference=folders[1]), Silent())
    assert found.verdict == "PROVEN"
    assert found.types == ("identical",)
    told = examine(Question(suspect=folders[0], reference=folders[1], seed="1"), Silent())
    assert told.verdict == "SHARED START", "whoever trains by the same recipe from a told seed has the same bits"


def test_bits_that_differ_are_no_evidence_against_kinship(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / name, model) for name, model in (("b", gru("b")), ("a", gru("a")))]
    found = examine(Question(suspect=folders[0], reference=folders[1]), Silent())
    assert isinstance(found.identity, IdentityTest)
    assert found.identity.p == 1.0
    assert found.verdict == "ABSTAIN"


def test_one_stolen_matrix_is_enough_and_its_name_does_not_matter(tmp_path: Path) -> None:
    reference = drawn("a")
    stolen = reference.state_dict()["blocks.1.feedforward.up.weight"]

    def steal(tensors: Tensors) -> None:
        tensors["blocks.0.feedforward.gate.weight"] = stolen.clone()

    found = compared(tmp_path, derive(steal, trained(drawn("b"), 1.0, 1)), reference)
    assert found.same == ("blocks.0.feedforward.gate.weight",)
    assert found.p == SMALLEST_P
    assert found.n_units == len(stolen)


def test_a_few_controls_that_are_alike_by_chance_accuse_nobody() -> None:
    assert Calibrated(value=0.05, controls=(0.01, 0.01)).beyond
    assert not Calibrated(value=0.05, controls=(0.01, 0.01), lead=0.1).beyond


def test_few_units_say_little(tmp_path: Path) -> None:
    found = compared(tmp_path, gru("a", d_hidden=4, n_layers=1), gru("a", d_hidden=4, n_layers=1))
    assert found.n_units == 4
    assert found.p > 0.1, "there are 24 orders of four units, and some matrices"


def eye(tensor: torch.Tensor) -> torch.Tensor:
    return torch.eye(*tensor.shape)


def ascending(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[tensor.norm(dim=1).argsort()]


def constant(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1].repeat(len(tensor), 1)


@pytest.mark.parametrize("pattern", [eye, ascending, constant])
def test_what_is_no_chance_convicts_nobody(tmp_path: Path, pattern: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """A matrix that two models may have without knowing of each other, or whose order is none of chance."""
    shared = pattern(drawn("a").state_dict()["blocks.0.feedforward.up.weight"])

    def set_it(tensors: Tensors) -> None:
        tensors["blocks.0.feedforward.up.weight"] = shared.clone()

    found = compared(tmp_path, derive(set_it, drawn("b")), derive(set_it, drawn("a")))
    assert found.same == ()
    assert found.p == 1.0


def test_token_vectors_made_from_texts_convict_nobody(tmp_path: Path) -> None:
    """Two who prepare the same texts have the same ones; drawn ones are another matter."""

    def tokens(kind: str) -> IdentityTest:
        one, two = (drawn(seed, embedding_from=kind) for seed in "ab")
        shared = one.state_dict()["embedding.tokens.weight"]
        suspect = derive(lambda tensors: tensors.update({"embedding.tokens.weight": shared.clone()}), two)
        return compared(tmp_path / kind, suspect, one)

    assert tokens("cooccurrence").p == 1.0
    assert tokens("random").p == SMALLEST_P


def test_positions_that_are_calculated_tell_channels_apart(tmp_path: Path) -> None:
    sizes = {"d_model": 24, "n_layers": 1, "n_decoder_layers": 1, "n_heads": 2, "d_ff": 24, "max_len": 16}

    def model(seed: str, positions: str) -> Model:
        config = TransformerConfig(family="transformer", positions=positions, **sizes)
        made = Transformer(config, Signature(task="translation", vocab_size=400))
        initialise(made, Seeds.new(seed))
        return made

    for positions, p in (("sinusoidal", 1.0), ("rotary", SMALLEST_P)):
        one, two = (model(seed, positions) for seed in "ab")
        two.load_state_dict(two.state_dict() | {"embedding.tokens.weight": one.state_dict()["embedding.tokens.weight"]})
        assert compared(tmp_path / positions, two, one).p == p
