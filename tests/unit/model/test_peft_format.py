"""Adapters on disk: what is written, what comes back, and what is said of a file that cannot be read."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from danlu.core.errors import CorruptError, DanluError, UsageError
from danlu.core.seeds import Seeds
from danlu.model.adapters import adapters, add_adapters, freeze_all_but_head, initialise_adapters
from danlu.model.base import Model, Signature
from danlu.model.bert import Bert, BertConfig
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import initialise
from danlu.model.layers.lora import LoraConfig
from danlu.model.peft_format import load_adapters, save_adapters

SEEDS = Seeds.new("1")
SIZE = {"d_model": 8, "n_layers": 2, "n_heads": 2, "d_ff": 12, "max_len": 16}
BERT = {
    r"blocks\.(\d+)\.attention\.q": r"bert.encoder.layer.\1.attention.self.query",
    r"blocks\.(\d+)\.attention\.k": r"bert.encoder.layer.\1.attention.self.key",
    r"blocks\.(\d+)\.attention\.v": r"bert.encoder.layer.\1.attention.self.value",
    r"blocks\.(\d+)\.attention\.out": r"bert.encoder.layer.\1.attention.output.dense",
    r"blocks\.(\d+)\.feedforward\.up": r"bert.encoder.layer.\1.intermediate.dense",
    r"blocks\.(\d+)\.feedforward\.down": r"bert.encoder.layer.\1.output.dense",
    r"head\.linear": r"classifier",
}
GPT2 = {
    r"blocks\.(\d+)\.attention\.[qkv]": r"transformer.h.\1.attn.c_attn",
    r"blocks\.(\d+)\.attention\.out": r"transformer.h.\1.attn.c_proj",
    r"blocks\.(\d+)\.feedforward\.up": r"transformer.h.\1.mlp.c_fc",
    r"blocks\.(\d+)\.feedforward\.down": r"transformer.h.\1.mlp.c_proj",
}
QUERY = "base_model.model.bert.encoder.layer.0.attention.self.query"
C_ATTN = "transformer.h.0.attn.c_attn"


def renaming(names: dict[str, str]) -> Callable[[str], str]:
    def rename(name: str) -> str:
        for pattern, path in names.items():
            if match := re.fullmatch(pattern, name):
                return match.expand(path)
        raise KeyError(name)

    return rename


def bert(n_classes: int = 3, **size: int) -> Model:
    signature = Signature(task="text-classification", vocab_size=20, mask_token=1, n_classes=n_classes)
    return Bert(BertConfig(family="bert", **SIZE | size), signature)


def gpt(**size: int) -> Model:
    config = GptConfig(family="gpt", positions="learned", activation="gelu-tanh", **SIZE | size)
    return Gpt(config, Signature(task="language-modelling", vocab_size=20))


def ready(model: Model, config: LoraConfig | None = None, trained: bool = True) -> Model:
    """With weights, and adapters if there is a config for them."""
    initialise(model, SEEDS)
    if config is not None:
        add_adapters(model, config)
        initialise_adapters(model, SEEDS)
        generator = torch.Generator().manual_seed(0)
        for layer in adapters(model).values():
            if trained:
                torch.nn.init.normal_(layer.lora_B.weight, generator=generator)
    return model


def written(folder: Path, config: LoraConfig | None = None) -> Path:
    """A BERT's adapters on disk."""
    config = config or LoraConfig(rank=2, targets=["q", "v"])
    save_adapters(ready(bert(), config), folder, config, renaming(BERT), task="text-classification")
    return folder


def change(folder: Path, change_it: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    change_it(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def configure(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder: Path, kind: type[DanluError], what: str, model: Model | None = None) -> None:
    """The file is refused with a message, and the model is left as it was."""
    model = ready(model or bert())
    before, names = copy.deepcopy(model.state_dict()), [type(part) for part in model.modules()]
    with pytest.raises(DanluError, match=what) as raised:
        load_adapters(model, folder, renaming(BERT))
    assert type(raised.value) is kind
    assert str(folder) in raised.value.where
    assert raised.value.advice
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [type(part) for part in model.modules()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())


# There and back


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(rank=2, alpha=3.5, dropout=0.2),
        LoraConfig(targets=["attention.q", "attention.v"], use_rslora=True),
        LoraConfig(targets=["blocks.1.feedforward.up"], train_head=False),
    ],
)
def test_a_classifier_comes_back(config: LoraConfig, tmp_path: Path) -> None:
    model = ready(bert(), config)
    save_adapters(model, tmp_path, config, renaming(BERT), task="text-classification")
    again = ready(bert())
    again.head.linear.weight.data.zero_()
    found = load_adapters(again, tmp_path, renaming(BERT))
    every = [name.split(".", 2)[2] for name in adapters(model)][:6]
    targets = tuple(sorted(every)) if config.targets == "all" else config.targets
    head = config.train_head is None
    assert found == config.model_copy(update={"targets": targets, "train_head": head})
    trains = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert [name for name, parameter in again.named_parameters() if parameter.requires_grad] == trains
    own = again.state_dict()
    differ = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, own[name])]
    assert differ == ([] if head else ["head.linear.weight"])


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("targets", ["all", ("attention.q", "attention.v"), ("attention.k",)])
@pytest.mark.parametrize("trained", [False, True])
def test_a_fused_layer_comes_back_bit_for_bit(targets: Any, use_rslora: bool, trained: bool, tmp_path: Path) -> None:
    config = LoraConfig(rank=2, alpha=5, targets=targets, use_rslora=use_rslora)
    model = ready(gpt(n_kv_heads=1), config, trained)
    save_adapters(model, tmp_path, config, renaming(GPT2), task="language-modelling", fan_in_fan_out=True)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert tensors[f"base_model.model.{C_ATTN}.lora_A.weight"].shape == (6, 8)
    assert tensors[f"base_model.model.{C_ATTN}.lora_B.weight"].shape == (8 + 4 + 4, 6)
    again = ready(gpt(n_kv_heads=1))
    load_adapters(again, tmp_path, renaming(GPT2))
    assert adapters(again).keys() == adapters(model).keys()
    own = again.state_dict()
    assert own.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_one_adapter_over_a_fused_layer_is_one_on_each_part(tmp_path: Path) -> None:
    a, b = torch.randn(2, 8), torch.randn(24, 2)
    names = (f"base_model.model.{C_ATTN}.lora_A.weight", f"base_model.model.{C_ATTN}.lora_B.weight")
    save_file(dict(zip(names, (a, b), strict=True)), tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [C_ATTN]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    model = ready(gpt())
    assert load_adapters(model, tmp_path, renaming(GPT2)).rank == 2
    for part, rows in zip("qkv", b.chunk(3), strict=True):
        layer = adapters(model)[f"blocks.0.attention.{part}"]
        assert torch.equal(layer.lora_A.weight, a)
        assert torch.equal(layer.lora_B.weight, rows)


def test_what_is_written_is_what_peft_asks_for(tmp_path: Path) -> None:
    written(tmp_path, LoraConfig(rank=2, alpha=4, dropout=0.1, targets=["blocks.0.attention.q"]))
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "inference_mode": True,
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.1,
        "use_rslora": False,
        "target_modules": ["bert.encoder.layer.0.attention.self.query"],
        "modules_to_save": ["classifier"],
        "rank_pattern": {},
        "alpha_pattern": {},
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }
    shapes = {name: list(t.shape) for name, t in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert shapes == {
        f"{QUERY}.lora_A.weight": [2, 8],
        f"{QUERY}.lora_B.weight": [8, 2],
        "base_model.model.classifier.weight": [3, 8],
        "base_model.model.classifier.bias": [3],
    }
    config = LoraConfig(train_head=False)
    save_adapters(ready(bert(), config), tmp_path, config, renaming(BERT), task="text-classification")
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (stored["task_type"], stored["modules_to_save"]) == (None, None)


@pytest.mark.parametrize("targets", [r".*\.(query|value)", ["query", "value"], None])
def test_targets_may_be_a_pattern_or_ends_of_names(targets: Any, tmp_path: Path) -> None:
    configure(written(tmp_path), target_modules=targets)
    assert load_adapters(ready(bert()), tmp_path, renaming(BERT)).targets == ("attention.q", "attention.v")


def test_a_half_precision_file_is_read(tmp_path: Path) -> None:
    change(written(tmp_path), lambda ts: ts.update({name: tensor.half() for name, tensor in ts.items()}))
    model = ready(bert())
    load_adapters(model, tmp_path, renaming(BERT))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


# What cannot be written


@pytest.mark.parametrize("lost", [r"blocks\.(\d+)\.attention\.v", r"head\.linear"])
def test_a_layer_without_a_counterpart_cannot_be_written(lost: str, tmp_path: Path) -> None:
    config = LoraConfig()
    names = {pattern: path for pattern, path in BERT.items() if pattern != lost}
    with pytest.raises(UsageError, match=f"^({lost}).* has no counterpart in transformers"):
        save_adapters(ready(bert(), config), tmp_path, config, renaming(names))
    assert not list(tmp_path.iterdir())


def test_a_head_that_peft_could_not_read_cannot_be_written(tmp_path: Path) -> None:
    signature = Signature(task="masked-language-modelling", vocab_size=20, mask_token=1)
    config = LoraConfig(train_head=True)
    model = ready(Bert(BertConfig(family="bert", **SIZE), signature), config)
    names = BERT | {r"head": r"cls.predictions", r"head\.(linear|norm)": r"cls.predictions.transform.\1"}
    with pytest.raises(UsageError, match=r"no place for a head trained in parts \(cls.predictions\)"):
        save_adapters(model, tmp_path, config, renaming(names), task="masked-language-modelling")


def test_a_model_without_adapters_has_none_to_write(tmp_path: Path) -> None:
    freeze_all_but_head(model := ready(bert()))
    with pytest.raises(UsageError, match="no adapters to save"):
        save_adapters(model, tmp_path, LoraConfig(), renaming(BERT))


# What cannot be read


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    for lost in (f"{QUERY}.lora_B.weight", "base_model.model.classifier.bias"):
        change(written(tmp_path), lambda ts, lost=lost: ts.pop(lost))
        refused(tmp_path, CorruptError, rf"{re.escape(lost)} is missing \(1 of 10 tensors are\)")
    change(written(tmp_path), lambda ts: [ts.pop(name) for name in list(ts) if QUERY in name])
    refused(tmp_path, CorruptError, f"{QUERY}.lora_A.weight is missing \\(2 of 10")


def test_a_tensor_too_many_is_named(tmp_path: Path) -> None:
    extra = "base_model.model.bert.encoder.layer.2.attention.self.query.lora_A.weight"
    change(written(tmp_path), lambda ts: ts.update({extra: torch.zeros(2, 8)}))
    refused(tmp_path, UsageError, rf"no place for {extra} \(1 of 11 tensors have none\)")
    refused(written(tmp_path), UsageError, "no place for base_model.model.bert.*1.attention", bert(n_layers=1))


def test_a_layer_that_was_trained_in_full_is_not_taken_for_an_adapted_one(tmp_path: Path) -> None:
    configure(written(tmp_path), target_modules=["query", "value", "key"], modules_to_save=["classifier", "key"])
    key = f"{QUERY.replace('query', 'key')}.weight"
    change(tmp_path, lambda ts: ts.update({key: torch.zeros(8, 8)}))
    refused(tmp_path, UsageError, rf"no place for {key} \(1 of 11")


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    refused(
        tmp_path, UsageError, r"query.lora_A.weight is float32 \[2, 8\] where .* \[2, 12\] are due", bert(d_model=12)
    )
    refused(tmp_path, UsageError, r"classifier.weight is float32 \[3, 8\] where .* \[4, 8\] are due", bert(4))
    change(tmp_path, lambda ts: ts.update({f"{QUERY}.lora_B.weight": torch.zeros(8, 2, dtype=torch.int64)}))
    refused(tmp_path, UsageError, "query.lora_B.weight is int64")


def test_another_rank_than_the_config_says_is_named(tmp_path: Path) -> None:
    configure(written(tmp_path), r=4)
    refused(tmp_path, UsageError, r"query.lora_A.weight is float32 \[2, 8\] where .* \[4, 8\] are due")


def test_ranks_or_strengths_of_their_own_are_refused(tmp_path: Path) -> None:
    configure(written(tmp_path), alpha_pattern={"query": 7})
    refused(tmp_path, UsageError, "adapter of bert.encoder.layer.0.attention.self.query has a rank or a strength")
    change(tmp_path, lambda ts: ts.update({f"{QUERY}.lora_A.weight": torch.zeros(1, 8)}))
    change(tmp_path, lambda ts: ts.update({f"{QUERY}.lora_B.weight": torch.zeros(8, 1)}))
    configure(tmp_path, alpha_pattern={}, rank_pattern={"layer.0.attention.self.query": 1})
    refused(tmp_path, UsageError, "adapter of bert.encoder.layer.0.attention.self.query has a rank or a strength")


def test_a_fused_layer_of_another_rank_that_is_not_in_blocks_is_refused(tmp_path: Path) -> None:
    config = LoraConfig(rank=2)
    save_adapters(ready(gpt(), config), tmp_path, config, renaming(GPT2))
    name = f"base_model.model.{C_ATTN}.lora_B.weight"
    change(tmp_path, lambda ts: ts.update({name: ts[name] + 1}))
    with pytest.raises(UsageError, match="c_attn has a rank or a strength of its own"):
        load_adapters(ready(gpt()), tmp_path, renaming(GPT2))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 a zip file", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"\xff" * 64, b"version 1\n"],
)
def test_what_only_looks_like_safetensors_is_refused(content: bytes, tmp_path: Path) -> None:
    (written(tmp_path) / "adapter_model.safetensors").write_bytes(content)
    refused(tmp_path, CorruptError, "not a safetensors file|is missing")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    refused(tmp_path, CorruptError, "not a safetensors file")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (written(tmp_path) / name).unlink()
    with pytest.raises(CorruptError, match="the file is missing") as raised:
        load_adapters(ready(bert()), tmp_path, renaming(BERT))
    assert raised.value.where == str(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"peft_type": "LOHA"}, "peft_type: Input should be 'LORA'"),
        ({"bias": "all"}, "bias: Input should be 'none'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),
        ({"r": 0}, "r: Input should be greater than 0"),
        ({"r": "eight"}, "r: "),
        ({"lora_alpha": -1}, "lora_alpha"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"rank_pattern": {"query": 0}}, "rank_pattern.query"),
        ({"target_modules": 3}, "target_modules"),
        ({"target_modules": "*"}, "target_modules: not a pattern"),
        ({"use_dora": True}, "uses use_dora"),
        ({"trainable_token_indices": [1]}, "uses trainable_token_indices"),
        ({"lora_bias": True}, "uses lora_bias"),
        ({"something_new": {"a": 1}}, "uses something_new"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(values: dict[str, Any], what: str, tmp_path: Path) -> None:
    configure(written(tmp_path), **values)
    refused(tmp_path, UsageError, re.escape(what))


def test_a_config_that_is_no_config_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path) / "adapter_config.json"
    path.write_text("[]")
    refused(tmp_path, UsageError, "the file: Input should be a valid dictionary")
    path.write_text("{")
    with pytest.raises(CorruptError, match="not valid JSON"):
        load_adapters(ready(bert()), tmp_path, renaming(BERT))


def test_a_file_without_adapters_is_refused(tmp_path: Path) -> None:
    change(written(tmp_path), lambda ts: [ts.pop(name) for name in list(ts) if "lora" in name])
    configure(tmp_path, target_modules=[])
    refused(tmp_path, CorruptError, "holds no adapter")


def test_a_model_with_adapters_takes_no_others(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has adapters already"):
        load_adapters(ready(bert(), LoraConfig()), written(tmp_path), renaming(BERT))
