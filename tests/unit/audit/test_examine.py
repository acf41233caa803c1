from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audit_models import L, derive, drawn, folder_of, permuted, rotated, trained
from danlu.audit.examine import Findings, Question, examine
from danlu.audit.verdict import SMALLEST_P
from danlu.core.errors import UsageError
from danlu.core.progress import Silent
from danlu.core.seeds import Seeds
from danlu.model.base import Model

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def reference() -> Model:
    return trained(drawn("a"), 1.0, 1)


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    home = tmp_path_factory.mktemp("controls")
    return tuple(folder_of(home / str(n), trained(drawn(f"control {n}"), 1.0, 10 + n)) for n in range(4))


def audited(home: Path, suspect: Model, reference: Model, controls: tuple[Path, ...], **more: object) -> Findings:
    folders = [folder_of(home / name, model) for name, model in (("b", suspect), ("a", reference))]
    return examine(Question(suspect=folders[0], reference=folders[1], controls=controls, **more), Silent())


def test_units_in_another_order_are_counted_and_convict_nobody_alone(
    tmp_path: Path, reference: Model, controls: tuple[Path, ...]
) -> None:
    def change(tensors: Tensors) -> None:
        permuted(tensors)
        for block in range(L):  # and the channels of the values, lest their order convicts
            order = torch.cat([head * 16 + torch.randperm(16) for head in range(4)])
            tensors[f"blocks.{block}.attention.v.weight"] = tensors[f"blocks.{block}.attention.v.weight"][order]
            tensors[f"blocks.{block}.attention.out.weight"] = tensors[f"blocks.{block}.attention.out.weight"][:, order]

    suspect = derive(change, trained(derive(lambda _: None, reference), 0.5, 2))
    found = audited(tmp_path, suspect, reference, controls)
    assert found.verdict == "STRONG"
    assert "reordered" in found.disguises
    assert found.clones is not None
    assert found.clones.share > 0.9
    assert max(found.control_clones) < 0.1


def test_an_unrelated_model_is_not_accused(tmp_path: Path, reference: Model, controls: tuple[Path, ...]) -> None:
    found = audited(tmp_path, trained(drawn("b"), 1.0, 3), reference, controls)
    assert found.verdict == "NO EVIDENCE"
    assert found.types == found.disguises == ()
    assert found.likeness.gain_cosine is not None
    assert found.likeness.gain_cosine > 0.95, "as like as the gains of any two models"
    power = found.power["feed-forward"]
    assert 0 < power.correlation < 0.2
    assert any(power.planted.values()), "at the level that the test was made at"
    assert not power.planted[0.01]


def test_the_seed_tells_whose_start_it_was_whatever_was_done(
    tmp_path: Path, reference: Model, controls: tuple[Path, ...]
) -> None:
    start = (drawn("a"), Seeds.new("a"))

    def hide(tensors: Tensors) -> None:
        permuted(tensors)
        rotated(tensors)

    hidden = derive(hide, trained(derive(lambda _: None, reference), 0.5, 2))
    found = audited(tmp_path / "hidden", hidden, reference, controls, start=start)
    assert not isinstance(found.seed, str)
    assert found.seed.p == SMALLEST_P
    assert found.seed.by in ("units", "tokens")
    assert found.seed.basis == "tokens"
    assert found.verdict == "PROVEN"
    other = audited(tmp_path / "other", trained(drawn("b"), 1.0, 3), reference, controls, start=start)
    assert not isinstance(other.seed, str)
    assert other.seed.p > 0.001


def test_siblings_rank_the_reference(tmp_path: Path, reference: Model, controls: tuple[Path, ...]) -> None:
    child = trained(derive(lambda _: None, reference), 0.5, 2)
    found = audited(tmp_path, child, reference, (), siblings=controls)
    assert not isinstance(found.sibling, str)
    assert found.sibling.p == 1 / (len(controls) + 1)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        examine(Question(suspect=tmp_path / "empty", reference=tmp_path / "empty"), Silent())


def with_gains(model: Model, seed: int) -> Model:
    """With norm gains that follow one curve in every model, as those of one make do."""
    draw = torch.Generator().manual_seed(seed)

    def change(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            if name.endswith("norm.weight"):
                curve = torch.linspace(0.5, 1.5, len(tensor))
                tensors[name] = curve + 0.1 * torch.randn(len(tensor), generator=draw)

    return derive(change, model)


def test_gains_that_are_alike_in_unrelated_models_too_are_no_likeness(tmp_path: Path) -> None:
    suspect, reference = (with_gains(trained(drawn(name), 1.0, n), n) for n, name in enumerate("ba"))
    unrelated = [with_gains(trained(drawn(f"control {n}"), 1.0, 5 + n), 5 + n) for n in range(3)]
    controls = tuple(folder_of(tmp_path / f"control-{n}", model) for n, model in enumerate(unrelated))
    beside = audited(tmp_path / "beside", suspect, reference, controls)
    assert beside.likeness.gain_correlation is not None
    assert beside.likeness.gain_correlation > 0.8
    assert beside.verdict == "NO EVIDENCE"
    assert audited(tmp_path / "alone", suspect, reference, ()).verdict == "CONTEXT ONLY"
