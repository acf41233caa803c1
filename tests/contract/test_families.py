"""What every model family owes the rest of danlu at every task that it can do, whatever it is inside."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cases import CASES, N_CLASSES, TEXTS, TOKENIZER, Case, alone, answers
from danlu.core.batch import NOT_PREDICTED
from danlu.core.errors import UsageError
from danlu.model.base import FamilyConfig, Signature
from danlu.model.classifier import NeuralClassifier
from danlu.model.families import FAMILIES
from danlu.model.language import NeuralLanguageModel
from danlu.model.module import build_module, load_module, save_module
from danlu.model.translator import NeuralTranslator
from small import SIZES

every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_text_case = pytest.mark.parametrize("case", [case for case in CASES if case.has_text], ids=str)
every_text_classifier = pytest.mark.parametrize(
    "case", [case for case in CASES if case.task == "text-classification"], ids=str
)
every_language_model = pytest.mark.parametrize(
    "case", [case for case in CASES if case.task == "language-modelling"], ids=str
)
every_translator = pytest.mark.parametrize("case", [case for case in CASES if case.task == "translation"], ids=str)


@pytest.fixture(autouse=True)
def fixed_dropout() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def config_of(family: str, **changes: object) -> FamilyConfig:
    config: FamilyConfig = FAMILIES[family].Config(family=family, **(SIZES[family] | changes))
    return config


def test_every_family_is_tested_at_a_tiny_size() -> None:
    assert set(SIZES) == set(FAMILIES.names())
    assert {case.family for case in CASES} == set(FAMILIES.names())


@every_case
def test_shapes_and_a_finite_loss_in_training_and_evaluation(case: Case) -> None:
    module, batch = case.module(), case.batch()
    for training in (True, False):
        output = module.train(training)(batch)
        if case.names_classes:
            assert output.logits.shape == (len(TEXTS), N_CLASSES)
        else:
            n_asked = int((batch.targets != NOT_PREDICTED).sum())
            assert output.logits.shape == (n_asked, TOKENIZER.get_vocab_size())
            everywhere = module(replace(batch, targets_BT=None)).logits
            assert everywhere.shape == (*batch.text[0].shape, TOKENIZER.get_vocab_size())
        assert bool(torch.isfinite(output.logits).all())
        loss = module.loss(output, batch)
        assert loss.shape == ()
        # Untrained, it knows nothing: no worse and no better than a guess among all (ln 3, ln V), roughly.
        guess = float(np.log(output.logits.shape[1]))
        assert 0.5 * guess < loss.item() < 2 * guess


@every_case
def test_gradients_reach_every_parameter(case: Case) -> None:
    module, batch = case.module().train(), case.batch()
    torch.autograd.backward(module.loss(module(batch), batch))
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


@every_text_case
def test_texts_with_no_token_at_all_are_answered(case: Case) -> None:
    module = case.module().eval()
    empty = case.batch(["", ""])
    loss = module.loss(module(empty), empty)
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(answer).all()) for answer in answers(module, empty))


@every_case
def test_neither_padding_nor_the_other_records_change_an_answer(case: Case) -> None:
    # Not the same bits: a matrix product of another shape sums in another order. The largest difference measured
    # over all cases: 3e-6, where logits reach 3.8; 1e-5 leaves room for another processor.
    module, batch = case.module().eval(), case.batch()
    for row, together in enumerate(answers(module, batch)):
        (by_itself,) = answers(module, alone(batch, row))
        torch.testing.assert_close(together, by_itself, atol=1e-5, rtol=0)


@every_text_case
def test_what_stands_on_the_padding_does_not_matter(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    other = replace(batch, tokens_BT=batch.text[0].masked_fill(~batch.text[1], 7))
    if batch.source_BS is not None:
        other = replace(other, source_BS=batch.source[0].masked_fill(~batch.source[1], 7))
    assert not torch.equal(other.text[0], batch.text[0])
    for mine, expected in zip(answers(module, other), answers(module, batch), strict=True):
        assert torch.equal(mine, expected)


@every_text_case
def test_every_text_of_a_batch_has_positions_of_its_own(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    positions_BT = batch.text[2].clone()
    positions_BT[0] = positions_BT[0].flip(0)
    before, after = answers(module, batch), answers(module, replace(batch, positions_BT=positions_BT))
    # A recurrent network knows the order of the tokens from reading them.
    assert torch.equal(after[0], before[0]) == (case.family == "gru")
    for mine, expected in zip(after[1:], before[1:], strict=True):
        torch.testing.assert_close(mine, expected, atol=2e-6, rtol=0)


@every_case
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(case: Case) -> None:
    first, again, other = (case.module(seed).state_dict() for seed in ("1", "1", "2"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].ndim >= 2]
    assert drawn
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@every_case
def test_a_saved_module_answers_with_the_same_bits(case: Case, tmp_path: Path) -> None:
    module, batch = case.module(), case.batch()
    module.train()(batch)  # so that what is counted in training, not learnt, is saved too
    save_module(tmp_path, module.eval())
    again = load_module(tmp_path).eval()
    assert again.config == module.config
    assert again.signature == module.signature
    stored, loaded = module.state_dict(), again.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    for mine, expected in zip(answers(again, batch), answers(module, batch), strict=True):
        assert torch.equal(mine, expected)
    (tmp_path / "again").mkdir()
    save_module(tmp_path / "again", again)
    for name in ("config.json", "signature.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


@every_case
def test_it_runs_in_bfloat16(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    exact = module.loss(module(batch), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = module.loss(module(batch), batch)
    torch.autograd.backward(loss)
    assert loss.dtype == torch.float32
    # bfloat16 keeps 8 bits of a number, and the logits are about 1; measured on the mean loss: 1e-3 at most.
    torch.testing.assert_close(loss, exact, atol=3e-3, rtol=0)
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in module.parameters())


def same_when_compiled(case: Case, compiler: str) -> None:
    """The same loss and the same gradients."""
    module, batch = case.module().eval(), case.batch()
    found = []
    try:
        for each in (module, torch.compile(module, backend=compiler)):
            loss = module.loss(each(batch), batch)
            found.append([loss, *torch.autograd.grad(loss, list(module.parameters()))])
    finally:
        torch._dynamo.reset()
    for mine, expected in zip(*found, strict=True):
        # The compiler sums in another order; measured 7e-7, of numbers up to 6.
        torch.testing.assert_close(mine, expected, atol=5e-6, rtol=0)


# Where a graph breaks, torch itself looks at the gradient of what lies between the parts.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@every_case
def test_as_graphs_it_gives_the_same_loss_and_gradients(case: Case) -> None:
    same_when_compiled(case, "aot_eager")


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # those of the compiler, which is not ours
@pytest.mark.timeout(600)
def test_compiled_to_machine_code_it_gives_the_same_loss_and_gradients() -> None:
    """One family only: the C++ of a module of one block takes most of a minute to compile."""
    same_when_compiled(Case("gpt", "language-modelling", changes={"n_layers": 1}), "inductor")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@every_case
def test_on_the_gpu_it_says_what_it_says_on_the_processor(case: Case) -> None:
    module, batch = case.module().eval(), case.batch()
    expected = answers(module, batch)
    on_gpu, there = module.to("cuda"), batch.to("cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # else a GRU multiplies in 10 bits of mantissa
        found = answers(on_gpu, there)
    for mine, other in zip(found, expected, strict=True):
        # float32 on both sides, sums in another order: logits of about 1.
        torch.testing.assert_close(mine.cpu(), other, atol=1e-4, rtol=0)
    loss = on_gpu.loss(on_gpu.train()(there), there)
    torch.autograd.backward(loss)
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in on_gpu.parameters())


# What answers by a module


@every_text_classifier
def test_probabilities_do_not_depend_on_the_order_or_number_of_texts(case: Case) -> None:
    classifier = NeuralClassifier(case.module(), TOKENIZER)
    found = classifier.predict_proba(TEXTS)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), N_CLASSES)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(TEXTS[::-1])[::-1], found, atol=1e-6)
    assert classifier.predict_proba([]).shape == (0, N_CLASSES)


@every_text_classifier
def test_a_saved_classifier_answers_with_the_same_bits(case: Case, tmp_path: Path) -> None:
    classifier = NeuralClassifier(case.module(), TOKENIZER)
    classifier.save(tmp_path)
    again = NeuralClassifier.load(tmp_path)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    assert again.n_parameters == classifier.n_parameters == sum(p.numel() for p in classifier.module.parameters())
    (tmp_path / "again").mkdir()
    again.save(tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "config.json",
        "model.safetensors",
        "signature.json",
        "tokenizer.json",
    ]
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


@every_language_model
def test_likelihoods_do_not_depend_on_the_order_or_number_of_texts(case: Case, tmp_path: Path) -> None:
    model = NeuralLanguageModel(case.module(), TOKENIZER)
    long = [*TEXTS, "".join(TEXTS)]  # several windows
    found = model.nats(long)
    assert found.dtype == np.float64
    assert bool((found > 0).all())
    # Sums of float32 numbers of about 6; measured 1e-7.
    np.testing.assert_allclose(model.nats(long[::-1])[::-1], found, rtol=1e-6)
    assert model.nats([]).shape == (0,)
    model.save(tmp_path)
    np.testing.assert_array_equal(NeuralLanguageModel.load(tmp_path).nats(long), found)


@every_translator
def test_translations_do_not_depend_on_the_order_or_number_of_texts(case: Case, tmp_path: Path) -> None:
    translator = NeuralTranslator(case.module(), TOKENIZER)
    found = translator.translate(TEXTS)
    assert [type(text) for text in found] == [str] * len(TEXTS)
    assert translator.translate(TEXTS[::-1])[::-1] == found
    assert translator.translate(TEXTS[:1]) == found[:1]
    assert translator.translate([]) == []
    translator.save(tmp_path)
    assert NeuralTranslator.load(tmp_path).translate(TEXTS) == found


# What cannot be


@pytest.mark.parametrize("family", FAMILIES.names())
def test_an_impossible_size_is_refused_by_name(family: str) -> None:
    wrong = {"d_model": 0, "n_layers": -1, "max_len": 1, "dropout": 1.0, "channels": [], "patch_size": 0}
    known = FAMILIES[family].Config.model_fields
    tried = [key for key in wrong if key in known]
    assert len(tried) >= 2
    for key in tried:
        with pytest.raises(ValueError, match=key):
            config_of(family, **{key: wrong[key]})


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("bert", {"n_heads": 3}, "d_model=16 is not an even multiple of n_heads=3"),
        ("bert", {"n_heads": 16}, "even multiple"),  # heads of width 1: nothing to turn
        ("transformer", {"n_heads": 3}, "d_model=16 is not an even multiple of n_heads=3"),
        ("gpt", {"n_heads": 3}, "d_model=16 is not a multiple of n_heads=3"),
        ("gpt", {"n_heads": 4, "n_kv_heads": 3}, "n_heads=4 is not a multiple of n_kv_heads=3"),
        ("gpt", {"n_heads": 16}, "rotary positions need heads of even width, not 1"),
    ],
)
def test_heads_that_do_not_fit_are_refused_before_anything_is_built(
    family: str, changes: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(family, **changes)


def test_a_family_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="unknown model family 'brt'") as found:
        FAMILIES["brt"]
    assert found.value.advice == "did you mean 'bert'?"


@pytest.mark.parametrize("family", FAMILIES.names())
def test_a_task_that_a_family_does_not_do_is_refused(family: str) -> None:
    others = {"text-classification", "image-classification", "masked-language-modelling"} - FAMILIES[family].tasks
    for task in sorted(others | {"translation", "language-modelling"} - FAMILIES[family].tasks):
        with pytest.raises(ValueError, match=f"a {family} is not trained for {task}, but for "):
            build_module(config_of(family), Signature(task=task, vocab_size=9, n_classes=2, image_size=(1, 28, 28)))


@pytest.mark.parametrize("family", FAMILIES.names())
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_every_size_of_the_dial_can_be_built(family: str, size: str) -> None:
    config = FAMILIES[family].Config(family=family, size=size, **FAMILIES[family].Config.sizes[size]["model"])
    side = 224 if size == "base" else 64 if size == "small" else 28
    for task in FAMILIES[family].tasks:
        signature = Signature(task=task, vocab_size=6000, n_classes=2, image_size=(3, side, side))
        with torch.device("meta"):
            assert build_module(config, signature).n_parameters() > 0
