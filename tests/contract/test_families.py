"""What every model family owes the rest of danlu, whatever it is inside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.core.errors import UsageError
from danlu.core.seeds import Seeds
from danlu.data.batches import collate
from danlu.data.tokenizer import MASK, PAD, TokenizerConfig, encode, train_tokenizer
from danlu.model.base import FamilyConfig, Model
from danlu.model.classifier import NeuralClassifier, build_module
from danlu.model.families import FAMILIES
from danlu.model.init import initialise
from danlu.train.masking import hide_tokens
from small import SIZES, made_up

N_CLASSES = 3
TEXTS = [text for text, _ in made_up(12)] + ["好"]

CLASSIFIERS = [(family, N_CLASSES) for family in FAMILIES.names()]
HEADS = [*CLASSIFIERS, ("bert", None)]
"""Every family with every head that it can have; None asks for hidden tokens."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(kind="char", vocab_size=300))


def config_of(family: str, **changes: float) -> FamilyConfig:
    config: FamilyConfig = FAMILIES[family].Config(family=family, **(SIZES[family] | changes))
    return config


def module_of(tokenizer: Tokenizer, family: str, n_classes: int | None, seed: str = "1") -> Model:
    module = build_module(config_of(family), tokenizer, n_classes)
    initialise(module, Seeds.new(seed))
    return module


def batch_of(tokenizer: Tokenizer, texts: list[str], n_classes: int | None = N_CLASSES) -> Batch:
    tokens = encode(tokenizer, texts, 32)
    labels = np.arange(len(texts)) % N_CLASSES
    batch = collate(tokens, np.arange(len(texts)), PAD, labels)
    return batch if n_classes else hide_tokens(batch, 0.5, MASK, Seeds.new("hide").generator("augment", 0))


@pytest.fixture(autouse=True)
def fixed_dropout() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_every_family_is_tested_at_a_tiny_size() -> None:
    assert set(SIZES) == set(FAMILIES.names())


@pytest.mark.parametrize(("family", "n_classes"), HEADS)
def test_shapes_and_a_finite_loss_in_training_and_evaluation(
    tokenizer: Tokenizer, family: str, n_classes: int | None
) -> None:
    module, batch = module_of(tokenizer, family, n_classes), batch_of(tokenizer, [*TEXTS, ""], n_classes)
    for training in (True, False):
        output = module.train(training)(batch)
        if n_classes:
            assert output.logits.shape == (len(TEXTS) + 1, N_CLASSES)
        else:
            assert batch.targets_BT is not None
            n_asked = int((batch.targets_BT != NOT_PREDICTED).sum())
            assert output.logits.shape == (n_asked, tokenizer.get_vocab_size())
        loss = module.loss(output, batch)
        assert loss.shape == ()
        assert bool(torch.isfinite(output.logits).all())
        # Untrained, it knows nothing: no worse and no better than a guess among all (ln 3, ln V), roughly.
        guess = float(np.log(output.logits.shape[1]))
        assert 0.5 * guess < loss.item() < 2 * guess


@pytest.mark.parametrize(("family", "n_classes"), HEADS)
def test_gradients_reach_every_parameter(tokenizer: Tokenizer, family: str, n_classes: int | None) -> None:
    module, batch = module_of(tokenizer, family, n_classes).train(), batch_of(tokenizer, TEXTS, n_classes)
    torch.autograd.backward(module.loss(module(batch), batch))
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


@pytest.mark.parametrize(("family", "n_classes"), CLASSIFIERS)
def test_texts_with_no_token_at_all_are_answered(tokenizer: Tokenizer, family: str, n_classes: int) -> None:
    module = module_of(tokenizer, family, n_classes).eval()
    alone, among = (module(batch_of(tokenizer, texts)).logits for texts in (["", ""], ["", *TEXTS]))
    assert bool(torch.isfinite(alone).all())
    torch.testing.assert_close(among[0], alone[0], atol=2e-6, rtol=0)


@pytest.mark.parametrize(("family", "n_classes"), CLASSIFIERS)
def test_padding_does_not_change_an_answer(tokenizer: Tokenizer, family: str, n_classes: int) -> None:
    # Not the same bits: a matrix product of another shape sums in another order. The largest difference measured
    # over both families, 13 texts and 3 seeds: 1.8e-7, where logits reach 0.9; 2e-6 leaves room for another processor.
    module = module_of(tokenizer, family, n_classes).eval()
    together = module(batch_of(tokenizer, TEXTS)).logits
    for row, text in enumerate(TEXTS):
        alone = module(batch_of(tokenizer, [text])).logits[0]
        torch.testing.assert_close(together[row], alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("family", "n_classes"), CLASSIFIERS)
def test_what_stands_on_the_padding_does_not_matter(tokenizer: Tokenizer, family: str, n_classes: int) -> None:
    module, batch = module_of(tokenizer, family, n_classes).eval(), batch_of(tokenizer, TEXTS)
    other = replace(batch, tokens_BT=batch.tokens_BT.masked_fill(~batch.mask_BT, 7))
    assert torch.equal(module(batch).logits, module(other).logits)


@pytest.mark.parametrize(("family", "n_classes"), HEADS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tokenizer: Tokenizer, family: str, n_classes: int | None
) -> None:
    first, again, other = (module_of(tokenizer, family, n_classes, seed).state_dict() for seed in ("1", "1", "2"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].ndim >= 2]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize(("family", "n_classes"), CLASSIFIERS)
def test_a_saved_model_answers_with_the_same_bits(tmp_path, tokenizer: Tokenizer, family: str, n_classes: int) -> None:
    classifier = NeuralClassifier(module_of(tokenizer, family, n_classes), tokenizer, n_classes)
    classifier.save(tmp_path)
    again = NeuralClassifier.load(tmp_path)
    stored, loaded = classifier.module.state_dict(), again.module.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert again.n_parameters == classifier.n_parameters == sum(p.numel() for p in classifier.module.parameters())
    (tmp_path / "again").mkdir()
    again.save(tmp_path / "again")
    for name in ("config.json", "head.json", "tokenizer.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(("family", "n_classes"), CLASSIFIERS)
def test_answers_do_not_depend_on_the_order_or_number_of_texts(
    tokenizer: Tokenizer, family: str, n_classes: int
) -> None:
    classifier = NeuralClassifier(module_of(tokenizer, family, n_classes), tokenizer, n_classes)
    found = classifier.predict_proba(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), n_classes)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS[::-1])[::-1], found, atol=1e-6)
    assert classifier.predict_proba([]).shape == (0, n_classes)


@pytest.mark.parametrize(("family", "n_classes"), HEADS)
def test_it_runs_in_bfloat16(tokenizer: Tokenizer, family: str, n_classes: int | None) -> None:
    module, batch = module_of(tokenizer, family, n_classes).eval(), batch_of(tokenizer, TEXTS, n_classes)
    exact = module.loss(module(batch), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.loss(module(batch), batch)
    torch.autograd.backward(loss)
    assert loss.dtype == torch.float32
    # bfloat16 keeps 8 bits of a number, and the logits are about 1; measured on the mean loss: 3e-4 at most.
    torch.testing.assert_close(loss, exact, atol=3e-3, rtol=0)
    assert all(parameter.grad is not None for parameter in module.parameters())


@pytest.mark.parametrize("family", FAMILIES.names())
@pytest.mark.parametrize(("key", "value"), [("d_model", 0), ("n_layers", -1), ("max_len", 1), ("dropout", 1.0)])
def test_an_impossible_size_is_refused_by_name(family: str, key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        config_of(family, **{key: value})


def test_heads_that_do_not_fit_are_refused_before_anything_is_built() -> None:
    with pytest.raises(ValueError, match="d_model=16 is not an even multiple of n_heads=3"):
        config_of("bert", n_heads=3)
    with pytest.raises(ValueError, match="even multiple"):
        config_of("bert", n_heads=16)  # heads of width 1: nothing to turn


def test_a_family_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="unknown model family 'brt'") as found:
        FAMILIES["brt"]
    assert found.value.advice == "did you mean 'bert'?"


def test_a_recurrent_network_does_not_name_hidden_tokens(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="a gru is not trained to name hidden tokens"):
        build_module(config_of("gru"), tokenizer, None)


@pytest.mark.parametrize("family", FAMILIES.names())
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_every_size_of_the_dial_can_be_built(tokenizer: Tokenizer, family: str, size: str) -> None:
    values = FAMILIES[family].Config.sizes[size]["model"]
    config = FAMILIES[family].Config(family=family, size=size, **values)
    with torch.device("meta"):
        assert build_module(config, tokenizer, 2).n_parameters() > 0
