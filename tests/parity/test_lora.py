"""Adapters against PEFT on tiny models of transformers: forward, backward, merged; files read both ways.

Everything is float32, and every difference the order of sums. Where both sides run the same layers the largest measured
is 2e-6 of outputs up to 3 (4e-6 merged), 3e-6 of gradients up to 0.9 and 4e-7 of merged weights up to 3; where one side
is our own family and the other that of transformers, 8e-6 of outputs up to 8.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from danlu.core.batch import Batch
from danlu.core.seeds import Seeds
from danlu.model.adapters import adapters, add_adapters, initialise_adapters, merge_adapters
from danlu.model.base import Model, Signature
from danlu.model.bert import Bert, BertConfig
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.layers.lora import LoraConfig
from danlu.model.peft_format import load_adapters, save_adapters
from danlu.model.pretrained.save import renamer

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

# PEFT 0.21 asks for it; transformers 5.23 warns.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

V, D, N = 32, 16, 3
SAME_LAYERS = {"rtol": 0.0, "atol": 2e-5}
OWN_LAYERS = {"rtol": 0.0, "atol": 4e-5}
SHAPE = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TOKENS_BT = torch.randint(2, V, (3, 7), generator=torch.Generator().manual_seed(0))
MASK_BT = torch.arange(7) < torch.tensor([[7], [4], [6]])


@pytest.fixture(autouse=True)
def fixed_randomness():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def bert() -> nn.Module:
    config = transformers.BertConfig(**SHAPE, max_position_embeddings=16, num_labels=N, initializer_range=0.3)
    return transformers.BertForSequenceClassification(config).eval()


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        **SHAPE, num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=False, initializer_range=0.3
    )
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=V, n_embd=D, n_layer=2, n_head=2, n_inner=24, n_positions=16, initializer_range=0.3
    )
    return transformers.GPT2LMHeadModel(config).eval()


FAMILIES: dict[str, tuple[Callable[[], nn.Module], list[str], str]] = {
    "bert": (bert, ["query", "key", "value", "attention.output.dense", "intermediate.dense"], "SEQ_CLS"),
    "llama": (llama, ["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "CAUSAL_LM"),
}


def logits_of(module: nn.Module) -> torch.Tensor:
    """Where there is a token."""
    logits = module(input_ids=TOKENS_BT, attention_mask=MASK_BT.long()).logits
    return logits[MASK_BT] if logits.ndim == 3 else logits


def randomise(module: nn.Module) -> None:
    """Adapters of PEFT that do something, and a head that is not the first one."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.normal_(std=0.3)


def put(model: nn.Module, targets: list[str], task: str | None, **more: Any) -> nn.Module:
    """PEFT's adapters on a model."""
    settings = {"r": 4, "lora_alpha": 6, "lora_dropout": 0.0} | more
    found = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, task_type=task, **settings)).eval()
    randomise(found)
    return found


def matrices(module: nn.Module) -> dict[str, nn.Parameter]:
    """Adapters' matrices by the name that they have in PEFT's files."""
    names = ((name.removeprefix("base_model.model."), p) for name, p in module.named_parameters())
    return {name.replace(".default.", "."): p for name, p in names if ".lora_" in name}


def itself(name: str) -> str:
    return name


# The same layers of transformers under both


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_gradients_and_merged_weights_are_pefts(family: str, use_rslora: bool) -> None:
    make, targets, task = FAMILIES[family]
    plain = make()
    ours = copy.deepcopy(plain)
    theirs = put(plain, targets, task, use_rslora=use_rslora)
    add_adapters(ours, LoraConfig(rank=4, alpha=6, dropout=0, targets=targets, use_rslora=use_rslora))
    assert matrices(ours).keys() == matrices(theirs).keys()
    head = {n.replace(".modules_to_save.default.", "."): p for n, p in theirs.named_parameters() if "to_save" in n}
    with torch.no_grad():
        for name, parameter in [*matrices(theirs).items(), *head.items()]:
            ours.get_parameter(name.removeprefix("base_model.model.")).copy_(parameter)
    before = logits_of(ours)
    torch.testing.assert_close(before, logits_of(theirs), **SAME_LAYERS)
    for module in (ours, theirs):
        logits_of(module).square().mean().backward()
    for name, parameter in matrices(theirs).items():
        torch.testing.assert_close(matrices(ours)[name].grad, parameter.grad, **SAME_LAYERS)
        assert parameter.grad.abs().max() > 1e-3  # so that the comparison says something
    merged = theirs.merge_and_unload()
    for layer in adapters(ours).values():
        layer.merge()
    torch.testing.assert_close(logits_of(ours), logits_of(merged), **SAME_LAYERS)
    for layer in adapters(ours).values():
        layer.unmerge()
    assert torch.equal(logits_of(ours), before)
    for name in merge_adapters(ours):
        torch.testing.assert_close(
            ours.get_submodule(name).weight, merged.get_submodule(name).weight, rtol=0, atol=2e-6
        )


def test_fresh_adapters_are_drawn_as_wide_as_pefts() -> None:
    ours, theirs = bert(), peft.get_peft_model(bert(), peft.LoraConfig(r=400, target_modules=["query"]))
    add_adapters(ours, LoraConfig(rank=400, targets=["query"]))
    initialise_adapters(ours, Seeds.new("1"))
    for name, parameter in matrices(theirs).items():
        mine = matrices(ours)[name]
        assert mine.shape == parameter.shape
        # 6,400 numbers: the standard error of their spread is 0.6%.
        assert float(mine.detach().std()) == pytest.approx(float(parameter.detach().std()), rel=0.03)
        assert float(mine.detach().abs().max()) == pytest.approx(float(parameter.detach().abs().max()), rel=0.01)


# Our own families beside those of transformers


class Pair:
    """One of our models and its counterpart, with the same weights."""

    def __init__(self, ours: Model, theirs: nn.Module, names: dict[str, str], task: str | None) -> None:
        self.ours, self.theirs, self.names, self.task = ours.eval(), theirs.eval(), names, task
        with torch.no_grad():
            for owner in {name.rpartition(".")[0] for name in ours.state_dict()}:
                self._copy(owner)

    def rename(self, name: str) -> str:
        for pattern, path in self.names.items():
            if match := re.fullmatch(pattern, name):
                return match.expand(path)
        raise KeyError(name)

    def logits(self) -> torch.Tensor:
        positions = torch.arange(7).expand(3, -1)
        batch = Batch(rows_B=torch.arange(3), tokens_BT=TOKENS_BT, mask_BT=MASK_BT, positions_BT=positions)
        logits = self.ours(batch).logits
        return logits[MASK_BT] if logits.ndim == 3 else logits

    def _copy(self, owner: str) -> None:
        mine, source = self.ours.get_submodule(owner), self.theirs.get_submodule(self.rename(owner))
        for name, parameter in mine.named_parameters(recurse=False):
            value = source.get_parameter(name)
            if isinstance(source, transformers.pytorch_utils.Conv1D) and name == "weight":
                value = value.T
            if "c_attn" in self.rename(owner):
                value = value.chunk(3)["qkv".index(owner[-1])]
            parameter.copy_(value)


def bert_pair() -> Pair:
    shape = {"d_model": D, "n_layers": 2, "n_heads": 2, "d_ff": 24, "max_len": 16}
    make = {"positions": "learned", "n_segments": 2, "norm_first": False, "norm_eps": 1e-12, "pooling": "first"}
    signature = Signature(task="text-classification", vocab_size=V, mask_token=1, n_classes=N)
    names = {
        r"embedding\.tokens": r"bert.embeddings.word_embeddings",
        r"embedding\.positions(\.\w+)?": r"bert.embeddings.position_embeddings",
        r"embedding\.segments": r"bert.embeddings.token_type_embeddings",
        r"embedding\.norm": r"bert.embeddings.LayerNorm",
        r"blocks\.(\d+)\.attention\.q": r"bert.encoder.layer.\1.attention.self.query",
        r"blocks\.(\d+)\.attention\.k": r"bert.encoder.layer.\1.attention.self.key",
        r"blocks\.(\d+)\.attention\.v": r"bert.encoder.layer.\1.attention.self.value",
        r"blocks\.(\d+)\.attention\.out": r"bert.encoder.layer.\1.attention.output.dense",
        r"blocks\.(\d+)\.attention_norm": r"bert.encoder.layer.\1.attention.output.LayerNorm",
        r"blocks\.(\d+)\.feedforward\.up": r"bert.encoder.layer.\1.intermediate.dense",
        r"blocks\.(\d+)\.feedforward\.down": r"bert.encoder.layer.\1.output.dense",
        r"blocks\.(\d+)\.feedforward_norm": r"bert.encoder.layer.\1.output.LayerNorm",
        r"pooler\.linear": r"bert.pooler.dense",
        r"head\.linear": r"classifier",
    }
    return Pair(Bert(BertConfig(family="bert", **shape, **make), signature), bert(), names, "SEQ_CLS")


def llama_pair() -> Pair:
    shape = {"d_model": D, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24, "max_len": 16}
    config = GptConfig(family="gpt", norm_eps=1e-6, tie_embeddings=False, **shape)
    names = {
        r"embedding\.tokens": r"model.embed_tokens",
        r"blocks\.(\d+)\.attention\.([qkv])": r"model.layers.\1.self_attn.\2_proj",
        r"blocks\.(\d+)\.attention\.out": r"model.layers.\1.self_attn.o_proj",
        r"blocks\.(\d+)\.feedforward\.(up|gate|down)": r"model.layers.\1.mlp.\2_proj",
        r"blocks\.(\d+)\.attention_norm": r"model.layers.\1.input_layernorm",
        r"blocks\.(\d+)\.feedforward_norm": r"model.layers.\1.post_attention_layernorm",
        r"norm": r"model.norm",
        r"head\.linear": r"lm_head",
    }
    return Pair(Gpt(config, Signature(task="language-modelling", vocab_size=V)), llama(), names, "CAUSAL_LM")


def gpt2_pair() -> Pair:
    shape = {"d_model": D, "n_layers": 2, "n_heads": 2, "d_ff": 24, "max_len": 16}
    make = {"positions": "learned", "norm": "layer", "activation": "gelu-tanh", "bias": True}
    names = {
        r"embedding\.tokens": r"transformer.wte",
        r"embedding\.positions(\.\w+)?": r"transformer.wpe",
        r"blocks\.(\d+)\.attention\.[qkv]": r"transformer.h.\1.attn.c_attn",
        r"blocks\.(\d+)\.attention\.out": r"transformer.h.\1.attn.c_proj",
        r"blocks\.(\d+)\.feedforward\.up": r"transformer.h.\1.mlp.c_fc",
        r"blocks\.(\d+)\.feedforward\.down": r"transformer.h.\1.mlp.c_proj",
        r"blocks\.(\d+)\.attention_norm": r"transformer.h.\1.ln_1",
        r"blocks\.(\d+)\.feedforward_norm": r"transformer.h.\1.ln_2",
        r"norm": r"transformer.ln_f",
    }
    config = GptConfig(family="gpt", **shape, **make)
    return Pair(Gpt(config, Signature(task="language-modelling", vocab_size=V)), gpt2(), names, "CAUSAL_LM")


PAIRS = {"bert": bert_pair, "llama": llama_pair, "gpt2": gpt2_pair}


@pytest.mark.parametrize("family", PAIRS)
def test_the_project_has_the_same_names(family: str) -> None:
    pair = PAIRS[family]()
    rename = renamer(pair.ours)
    for name in {name.rpartition(".")[0] for name, _ in pair.ours.named_parameters()}:
        assert rename(name) == pair.rename(name)


THEIR_TARGETS = {
    "bert": FAMILIES["bert"][1],
    "llama": FAMILIES["llama"][1],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
}


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("targets", ["all", ("attention.q", "attention.v")])
@pytest.mark.parametrize("family", PAIRS)
def test_peft_reads_what_we_write(family: str, targets: Any, use_rslora: bool, tmp_path: Path) -> None:
    pair = PAIRS[family]()
    plain = logits_of(pair.theirs)
    torch.testing.assert_close(pair.logits(), plain, **OWN_LAYERS)
    config = LoraConfig(rank=4, alpha=6, targets=targets, use_rslora=use_rslora)
    add_adapters(pair.ours, config)
    randomise(pair.ours)
    with torch.no_grad():
        for parameter in pair.ours.head.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    task = pair.ours.signature.task
    save_adapters(pair.ours, tmp_path, config, pair.rename, task=task, fan_in_fan_out=family == "gpt2")
    read = peft.PeftModel.from_pretrained(pair.theirs, tmp_path)
    assert (logits_of(read) - plain).abs().max() > 0.1
    torch.testing.assert_close(logits_of(read), pair.logits(), **OWN_LAYERS)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["task_type"] == pair.task
    before = pair.logits()
    merge_adapters(pair.ours)
    torch.testing.assert_close(pair.logits(), before, **OWN_LAYERS)
    torch.testing.assert_close(logits_of(read.merge_and_unload()), before, **OWN_LAYERS)


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("family", PAIRS)
def test_we_read_what_peft_writes(family: str, use_rslora: bool, tmp_path: Path) -> None:
    pair = PAIRS[family]()
    more = {"fan_in_fan_out": True} if family == "gpt2" else {}
    theirs = put(pair.theirs, THEIR_TARGETS[family], pair.task, use_rslora=use_rslora, **more)
    theirs.save_pretrained(tmp_path)
    config = load_adapters(pair.ours, tmp_path, pair.rename)
    pair.ours.eval()
    assert (config.rank, config.alpha, config.use_rslora) == (4, 6, use_rslora)
    torch.testing.assert_close(pair.logits(), logits_of(theirs), **OWN_LAYERS)
    # And back: GPT-2's fused layers are now three times as wide, and say the same.
    again = tmp_path / "again"
    again.mkdir()
    save_adapters(pair.ours, again, config, pair.rename, fan_in_fan_out=family == "gpt2")
    read = peft.PeftModel.from_pretrained(theirs.unload(), again)
    torch.testing.assert_close(logits_of(read), pair.logits(), **OWN_LAYERS)
