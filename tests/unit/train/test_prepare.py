from __future__ import annotations

import pytest
import torch

from danlu.core.errors import CorruptError, DataError, UsageError
from danlu.core.progress import Silent
from danlu.data.stage import DataConfig, build_dataset
from danlu.data.tokenizer import TokenizerConfig, encode, train_tokenizer
from danlu.model.base import Signature
from danlu.train.cooccurrence import cooccurrence_vectors
from danlu.train.prepare import Material, Sources, kept_seeds, kept_tokenizer, start_module, text_signature
from danlu.train.stage import train_model
from small import SCORE, Listener, made_up, make_dataset, material_of, spec_of

TEXTS = [text for text, _ in made_up(40)]
TOKENIZER = train_tokenizer(TEXTS, TokenizerConfig(kind="char", vocab_size=300))


@pytest.fixture
def world(tmp_path):
    workspace, dataset = make_dataset(tmp_path)
    return tmp_path, workspace, dataset


def start(world, family="bert", seeds=None, tokens=None, **sections):
    folder, _, dataset = world
    material = material_of(dataset, spec_of(folder, family, **sections))
    signature = text_signature(material, "text-classification", TOKENIZER, 2)
    return start_module(material, signature, seeds or kept_seeds(material), tokens)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_dataset_without_a_split_to_train_or_to_judge_on_is_refused(world, split, tmp_path):
    (tmp_path / "other").mkdir()
    column = "train" if split == "valid" else "valid"
    rows = [f"{text},{label},{column if n % 3 else 'test'}" for n, (text, label) in enumerate(made_up(60))]
    (tmp_path / "other" / "texts.csv").write_text("\n".join(["text,label,split", *rows]))
    columns = {"text": "text", "label": "label", "split": "split"}
    config = DataConfig(source="texts.csv", columns=columns, split={"column": "split", "valid": 0, "test": 0})
    if split == "train":
        with pytest.raises(DataError):  # the data stage does not make one
            build_dataset(world[1], "other", config, tmp_path / "other", Silent())
        return
    dataset = build_dataset(world[1], "other", config, tmp_path / "other", Silent())
    with pytest.raises(DataError, match="the valid split is empty"):
        material_of(dataset, spec_of(tmp_path))


def test_every_phase_has_seeds_of_its_own_that_follow_from_the_number(world):
    folder, _, dataset = world
    material = material_of(dataset, spec_of(folder, seed=7))
    first, again, other = (kept_seeds(material, phase) for phase in ("", "", " pretrain"))
    assert first.at("init", 0) == again.at("init", 0) != other.at("init", 0)
    drawn = material_of(dataset, spec_of(folder, seed=None))
    assert kept_seeds(drawn).at("init", 0) != kept_seeds(drawn).at("init", 0)
    kept = material_of(dataset, spec_of(folder, seed=None), folder)
    assert kept_seeds(kept).at("init", 0) == kept_seeds(kept).at("init", 0)


def test_a_tokenizer_is_trained_once_a_run(world):
    folder, _, dataset = world
    material = material_of(dataset, spec_of(folder), folder)
    asked = []
    first = kept_tokenizer(material, lambda: asked.append(1) or TEXTS)
    again = kept_tokenizer(material, lambda: asked.append(1) or ["other"])
    assert asked == [1]
    assert first.to_str() == again.to_str()


def test_the_signature_says_what_the_tokenizer_writes(world):
    material = material_of(world[2], spec_of(world[0]))
    found = text_signature(material, "language-modelling", TOKENIZER)
    size = TOKENIZER.get_vocab_size()
    assert found == Signature(
        task="language-modelling", vocab_size=size, mask_token=4, begin_token=2, end_token=3, n_classes=0
    )


def test_token_vectors_come_from_their_company_where_that_is_wanted(world):
    tokens = encode(TOKENIZER, TEXTS, None)
    config = {"embedding_from": "cooccurrence"}
    seeds = kept_seeds(material_of(world[2], spec_of(world[0])))
    near = start(world, model=config, tokens=tokens, seeds=seeds)
    drawn = start(world, model={"embedding_from": "random"}, tokens=tokens, seeds=seeds)
    without = start(world, model=config, seeds=seeds)
    seed = seeds.at("init", "cooccurrence")
    expected = cooccurrence_vectors(tokens, TOKENIZER.get_vocab_size(), 16, std=0.05, seed=seed)
    alone = ~expected.any(axis=1)
    assert alone[:5].all()  # special tokens stand in no text: zeros there would have a gradient that drowns all others
    assert not alone.all()
    table = near.embedding.tokens.weight
    assert torch.equal(table[~alone], torch.from_numpy(expected[~alone]))
    assert torch.equal(table[alone], drawn.embedding.tokens.weight[alone])
    assert torch.equal(drawn.embedding.tokens.weight, without.embedding.tokens.weight)
    for name, parameter in near.named_parameters():
        assert torch.equal(parameter, drawn.get_parameter(name)) == (name != "embedding.tokens.weight"), name


def test_what_cannot_be_built_is_the_users_mistake(world):
    folder, _, dataset = world
    material = material_of(dataset, spec_of(folder, "gru"))
    signature = text_signature(material, "masked-language-modelling", TOKENIZER)
    with pytest.raises(UsageError, match="a gru is not trained for masked-language-modelling") as found:
        start_module(material, signature, kept_seeds(material))
    assert (found.value.where, found.value.advice) == ("model", "choose another family, or other sizes")


@pytest.fixture
def checkpoint(world):
    folder, workspace, dataset = world
    spec = spec_of(folder, train={"epochs": 1}, seed=3)
    return train_model(workspace, "first", dataset, spec, Sources(), SCORE, Silent())


def from_checkpoint(world, checkpoint, told=None, **sections):
    folder, _, dataset = world
    spec = spec_of(folder, model={"from": str(checkpoint.path)}, **sections)
    return Material(
        dataset=dataset, spec=spec, folder=None, start=checkpoint.path, score=SCORE, progress=told or Silent()
    )


@pytest.mark.parametrize("n_classes", [2, 3])
def test_a_checkpoint_gives_the_tokenizer_and_all_weights_but_those_of_a_new_head(world, checkpoint, n_classes):
    told = Listener()
    material = from_checkpoint(world, checkpoint, told)
    tokenizer = kept_tokenizer(material, lambda: pytest.fail("the checkpoint has one"))
    signature = text_signature(material, "text-classification", tokenizer, n_classes)
    module = start_module(material, signature, kept_seeds(material))
    drawn = start_module(material_of(world[2], spec_of(world[0])), signature, kept_seeds(material))
    from danlu.model.module import load_module

    stored = load_module(checkpoint.path)
    for name, parameter in module.named_parameters():
        new = name.startswith("head.") and n_classes != 2
        assert torch.equal(parameter, (drawn if new else stored).get_parameter(name)), name
    assert any(note.startswith("drawn anew: head.linear") for note in told.notes) == (n_classes != 2)


def test_a_checkpoint_of_another_size_does_not_fit(world, checkpoint):
    material = from_checkpoint(world, checkpoint)
    other = spec_of(world[0]).model.model_copy(update={"d_model": 32})
    material = Material(
        dataset=material.dataset,
        spec=material.spec.model_copy(update={"model": other}),
        folder=None,
        start=checkpoint.path,
        score=SCORE,
    )
    tokenizer = kept_tokenizer(material, lambda: TEXTS)
    signature = text_signature(material, "text-classification", tokenizer, 2)
    with pytest.raises(CorruptError, match="cannot start from these weights"):
        start_module(material, signature, kept_seeds(material))


@pytest.mark.parametrize("mode", ["full", "lora", "head"])
def test_only_what_is_to_be_trained_is_free(world, checkpoint, mode):
    material = from_checkpoint(world, checkpoint, train={"adapt": {"mode": mode, "lora": {"rank": 2}}})
    tokenizer = kept_tokenizer(material, lambda: TEXTS)
    module = start_module(material, text_signature(material, "text-classification", tokenizer, 2), kept_seeds(material))
    free = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    everything = {name for name, _ in module.named_parameters()}
    head = {name for name in everything if name.startswith("head.")}
    adapters = {name for name in everything if "lora_" in name}
    assert free == {"full": everything, "lora": head | adapters, "head": head}[mode]
    assert bool(adapters) == (mode == "lora")
