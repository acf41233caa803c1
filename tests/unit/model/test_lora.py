"""Adapters: what a layer computes, which layers get one, what is frozen, and what a merge leaves."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F

from danlu.core.batch import Batch
from danlu.core.errors import UsageError
from danlu.core.seeds import Seeds
from danlu.model.adapters import (
    adapters,
    add_adapters,
    freeze_all_but_head,
    initialise_adapters,
    linear_layers,
    merge_adapters,
    merge_and_replay,
    short_names,
)
from danlu.model.base import Model, Signature
from danlu.model.bert import Bert, BertConfig
from danlu.model.gpt import Gpt, GptConfig
from danlu.model.init import initialise
from danlu.model.layers.lora import LoraConfig, LoraLinear

SEEDS = Seeds.new("1")
SIZE = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24, "max_len": 16}


@pytest.fixture(autouse=True)
def fixed_randomness():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def layer_of(config: LoraConfig, dtype: torch.dtype = torch.float32, bias: bool = True) -> LoraLinear:
    """A layer 6 -> 5 in training, its adapter no longer zero."""
    layer = LoraLinear(nn.Linear(6, 5, bias=bias, dtype=dtype), config)
    for matrix in (layer.lora_A, layer.lora_B):
        nn.init.normal_(matrix.weight)
    return layer


def bert() -> Model:
    model = Bert(
        BertConfig(family="bert", **SIZE),
        Signature(task="text-classification", vocab_size=30, mask_token=1, n_classes=3),
    )
    initialise(model, SEEDS)
    return model


def gpt(tie_embeddings: bool = True) -> Model:
    config = GptConfig(family="gpt", tie_embeddings=tie_embeddings, **SIZE)
    model = Gpt(config, Signature(task="language-modelling", vocab_size=30))
    initialise(model, SEEDS)
    return model


def batch_of(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask_BT = torch.arange(8) < torch.tensor([[8], [5], [2], [7]])
    return Batch(
        rows_B=torch.arange(4),
        tokens_BT=torch.randint(2, 30, (4, 8), generator=generator) * mask_BT,
        mask_BT=mask_BT,
        positions_BT=torch.arange(8).expand(4, -1),
        labels_B=torch.tensor([0, 1, 2, 0]),
    )


def adapted(model: Model, **config: object) -> Model:
    """With adapters that are no longer zero."""
    add_adapters(model, LoraConfig(**config))
    initialise_adapters(model, SEEDS)
    for layer in adapters(model).values():
        nn.init.normal_(layer.lora_B.weight, std=0.3)
    return model


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


# The layer


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_formula_forward_and_backward(use_rslora: bool, bias: bool) -> None:
    layer = layer_of(LoraConfig(rank=4, alpha=6, dropout=0, use_rslora=use_rslora), torch.float64, bias)
    w, a, b = (part.weight.detach().clone().requires_grad_() for part in (layer.base, layer.lora_A, layer.lora_B))
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    scale = 6 / 2 if use_rslora else 6 / 4
    expected = F.linear(x, w + scale * b @ a, layer.base.bias)
    dx, da, db = torch.autograd.grad(expected.square().sum(), [x, a, b])
    found = layer(x)
    found.square().sum().backward()
    # Measured: 1e-12 of gradients up to 2,500, the order of sums in float64.
    close = {"rtol": 1e-12, "atol": 1e-11}
    torch.testing.assert_close(found, expected, **close)
    for mine, theirs in ((x.grad, dx), (layer.lora_A.weight.grad, da), (layer.lora_B.weight.grad, db)):
        torch.testing.assert_close(mine, theirs, **close)
    assert layer.base.weight.grad is None


def test_only_the_adapter_sees_dropout_and_only_in_training() -> None:
    layer = layer_of(LoraConfig(rank=2, dropout=0.5))
    x = torch.ones(4000, 6)
    kept = layer.train()(x)
    assert len(kept.unique(dim=0)) == 2**6  # every subset of the six inputs, once
    whole = layer.eval()(x)
    assert len(whole.unique(dim=0)) == 1
    spread = (kept - layer.base(x)).std(0)
    # The mean over the masks is the answer without them: five standard errors.
    assert ((kept.mean(0) - whole[0]).abs() < 5 * spread / math.sqrt(len(x))).all()
    nn.init.zeros_(layer.lora_B.weight)
    assert torch.equal(layer.train()(x), layer.base(x))


def test_merged_it_is_one_matrix_and_unmerged_it_is_bit_for_bit_what_it_was() -> None:
    layer = layer_of(LoraConfig(rank=3)).eval()
    x = torch.randn(7, 6)
    before, weights = layer(x), copy.deepcopy(layer.state_dict())
    layer.merge()
    w, a, b = layer.base.weight.double(), layer.lora_A.weight.double(), layer.lora_B.weight.double()
    expected = F.linear(x.double(), w + layer.scale * b @ a, layer.base.bias.double())
    torch.testing.assert_close(layer(x).double(), expected, rtol=0, atol=1e-5)  # measured: 3e-6 of numbers up to 20
    assert not torch.equal(layer(x), before)  # so it is another computation
    saved = layer.state_dict()
    assert saved.keys() == weights.keys() == {"base.weight", "base.bias", "lora_A.weight", "lora_B.weight"}
    assert all(torch.equal(saved[name], weights[name]) for name in weights)
    layer.unmerge()
    assert torch.equal(layer(x), before)


def test_training_unmerges() -> None:
    layer = layer_of(LoraConfig(rank=3, dropout=0)).eval()
    x = torch.randn(7, 6)
    expected = layer(x)
    layer.merge()
    assert torch.equal(layer.train()(x), expected)
    layer(x).sum().backward()
    assert layer.lora_A.weight.grad is not None


def test_the_sum_is_rounded_once_in_bfloat16() -> None:
    layer = layer_of(LoraConfig(rank=3), torch.bfloat16)
    layer.merge()
    w, a, b = (part.weight.double() for part in (layer.base, layer.lora_A, layer.lora_B))
    exact = w + layer.scale * b @ a
    assert layer.merged_weight.dtype == torch.bfloat16
    # Half a unit in the last of 8 bits: 2**-8 of a number at most. The sum is made in float32, next to exactly.
    assert ((layer.merged_weight.double() - exact).abs() <= exact.abs() * 2**-8 * (1 + 1e-3)).all()


def test_an_adapter_that_nobody_set_shows_itself() -> None:
    linear = nn.Linear(6, 5)
    state = torch.get_rng_state()
    layer = LoraLinear(linear, LoraConfig())
    assert torch.equal(torch.get_rng_state(), state), "the adapter drew from torch's generator"
    assert layer(torch.ones(6)).isnan().all()


def test_it_is_in_the_mode_of_the_layer() -> None:
    for mode in (True, False):
        layer = LoraLinear(nn.Linear(6, 5).train(mode), LoraConfig())
        assert [part.training for part in layer.modules()] == [mode] * 5


def test_folding_leaves_the_layer_itself() -> None:
    linear = nn.Linear(6, 5)
    layer = LoraLinear(linear, LoraConfig(rank=2))
    nn.init.normal_(layer.lora_A.weight)
    nn.init.normal_(layer.lora_B.weight)
    layer.merge()
    assert layer.fold() is linear
    assert torch.equal(linear.weight, layer.merged_weight)
    assert linear.weight.requires_grad
    assert linear.bias.requires_grad


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"targets": []}, {"targets": "q"}])
def test_a_config_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoraConfig(**wrong)


# Adapters on a model


def test_all_means_every_linear_layer_of_the_blocks() -> None:
    model = bert()
    names = add_adapters(model, LoraConfig(rank=2))
    kinds = ["attention.q", "attention.k", "attention.v", "attention.out", "feedforward.up", "feedforward.down"]
    assert names == [f"blocks.{block}.{kind}" for block in (0, 1) for kind in kinds]
    assert names == list(adapters(model)) == list(linear_layers(model))
    matrices = {f"{name}.{matrix}.weight" for name in names for matrix in ("lora_A", "lora_B")}
    assert trained(model) == matrices | {"head.linear.weight", "head.linear.bias"}
    d, f = SIZE["d_model"], SIZE["d_ff"]
    n_trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert n_trained == 2 * 2 * (4 * (d + d) + 2 * (d + f)) + 3 * (d + 1)


def test_a_language_model_keeps_its_head() -> None:
    for tied in (True, False):
        names = add_adapters(model := gpt(tied), LoraConfig())
        assert {name.split(".", 2)[2] for name in names} >= {"feedforward.gate", "feedforward.up", "feedforward.down"}
        assert not any(name.startswith(("head", "embedding")) for name in [*names, *trained(model)])
    assert "head.linear.weight" in trained(adapted(gpt(tie_embeddings=False), train_head=True))
    assert "head.linear.weight" not in trained(adapted(bert(), train_head=False))


@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        (["attention.q", "attention.v"], ["attention.q", "attention.v"]),
        (["q", "feedforward.up"], ["attention.q", "feedforward.up"]),
    ],
)
def test_targets_are_the_ends_of_names(targets: list[str], kinds: list[str]) -> None:
    model = bert()
    assert add_adapters(model, LoraConfig(targets=targets)) == [f"blocks.{n}.{kind}" for n in (0, 1) for kind in kinds]


def test_one_layer_of_one_block_can_be_meant() -> None:
    assert add_adapters(bert(), LoraConfig(targets=["blocks.1.attention.q"])) == ["blocks.1.attention.q"]


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("attention.qq", "did you mean 'attention.q'?"),
        ("tention.q", "did you mean 'attention.q'?"),
        ("feedforward.gate", "did you mean 'feedforward."),
        ("head.linear", "known here: attention.k, attention.out, attention.q, attention.v, feedforward.down, feedf"),
    ],
)
def test_a_target_that_matches_nothing_is_named(target: str, advice: str) -> None:
    model = bert()
    with pytest.raises(UsageError, match=f"no linear layer is called '{target}'") as raised:
        add_adapters(model, LoraConfig(targets=["attention.q", target]))
    assert raised.value.advice.startswith(advice)
    assert not adapters(model)
    assert trained(model) == {name for name, _ in model.named_parameters()}


def test_a_model_without_blocks_or_head_or_with_adapters_is_refused() -> None:
    plain = nn.Sequential()
    plain.add_module("first", nn.Linear(3, 3))
    with pytest.raises(UsageError, match="no linear layers in blocks"):
        add_adapters(plain, LoraConfig())
    for without in (plain, gpt(tie_embeddings=True)):
        with pytest.raises(UsageError, match="no head to train"):
            freeze_all_but_head(without)
    model = gpt()
    with pytest.raises(UsageError, match="no head to train"):
        add_adapters(model, LoraConfig(train_head=True))
    assert not adapters(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(UsageError, match="has adapters already"):
        add_adapters(adapted(model), LoraConfig())


def test_torchs_own_attention_is_left_alone() -> None:
    layer = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)])
    assert list(linear_layers(layer)) == ["0.linear1", "0.linear2"]  # out_proj is read there, never called


def test_a_model_with_fresh_adapters_is_the_model() -> None:
    for model in (bert(), gpt()):
        model.eval()
        before = model(batch_of()).logits
        others = copy.deepcopy(model.state_dict())
        add_adapters(model, LoraConfig(rank=4))
        initialise_adapters(model, SEEDS)
        assert torch.equal(model(batch_of()).logits, before)
        after = {name.replace(".base.", "."): tensor for name, tensor in model.state_dict().items()}
        assert all(torch.equal(after[name], tensor) for name, tensor in others.items())


def test_an_adapter_starts_from_the_seed_and_its_own_name() -> None:
    def drawn(seeds: Seeds, **config: object) -> dict[str, torch.Tensor]:
        add_adapters(model := bert(), LoraConfig(**config))
        initialise_adapters(model, seeds)
        assert all(not layer.lora_B.weight.any() for layer in adapters(model).values())
        return {name: layer.lora_A.weight.detach() for name, layer in adapters(model).items()}

    every, some = drawn(SEEDS), drawn(SEEDS, targets=["v"])
    assert list(some) == ["blocks.0.attention.v", "blocks.1.attention.v"]
    assert all(torch.equal(some[name], every[name]) for name in some)
    assert not torch.equal(*some.values())
    assert not torch.equal(drawn(Seeds.new("2"))["blocks.0.attention.v"], some["blocks.0.attention.v"])
    wide = torch.cat([a.flatten() for name, a in drawn(SEEDS, rank=400).items() if "down" not in name])
    assert wide.abs().max() <= 1 / math.sqrt(16)
    assert wide.std() == pytest.approx(1 / math.sqrt(3 * 16), rel=0.01)  # 64,000 numbers: standard error 0.2%


def test_training_changes_adapters_and_head_only() -> None:
    model = bert().train()
    add_adapters(model, LoraConfig(rank=4, dropout=0))
    initialise_adapters(model, SEEDS)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    losses = []
    for _ in range(20):
        loss = model.loss(model(batch_of()), batch_of())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == trained(model)


def test_adapted_weights_come_back_from_a_state_dict() -> None:
    model = adapted(bert(), rank=2).eval()
    again = Bert(model.config, model.signature).eval()
    add_adapters(again, LoraConfig(rank=2))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(batch_of()).logits, model(batch_of()).logits)


def test_autocast_trains() -> None:
    model = adapted(bert()).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.loss(model(batch_of()), batch_of())
    loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or (parameter.grad.isfinite().all() and parameter.grad.any()), name


def test_the_head_alone() -> None:
    freeze_all_but_head(model := bert())
    assert trained(model) == {"head.linear.weight", "head.linear.bias"}


# Merging


# Measured over eleven seeds: 4e-7 to 1.5e-5 in float32, 1e-14 in float64, of logits up to 1.5: the order of sums.
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 2e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize("make", [bert, gpt])
def test_a_merged_model_answers_the_same_and_is_an_ordinary_one(
    make: Callable[[], Model], dtype: torch.dtype, rounding: float
) -> None:
    ordinary = make().to(dtype)
    model = adapted(make(), rank=4).to(dtype)
    far = (model.eval()(batch_of()).logits - ordinary.eval()(batch_of()).logits).abs().max()
    largest = merge_and_replay(model.train(), [batch_of(seed) for seed in range(3)])
    assert 0 < largest < rounding < 0.1 < far
    assert model.training
    assert not adapters(model)
    assert model.state_dict().keys() == ordinary.state_dict().keys()
    assert [type(part) for part in model.modules()] == [type(part) for part in ordinary.modules()]
    assert trained(model) == trained(ordinary)
    ordinary.load_state_dict(model.state_dict())
    assert torch.equal(ordinary.eval()(batch_of()).logits, model.eval()(batch_of()).logits)


def test_a_replay_shows_a_merge_that_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoraLinear, "fold", lambda layer: layer.base)
    assert merge_and_replay(adapted(bert()), [batch_of()]) > 0.01


def test_a_replay_does_not_hide_what_is_not_a_number() -> None:
    model = adapted(bert())
    next(iter(adapters(model).values())).lora_A.weight.data[0, 0] = math.nan
    assert math.isnan(merge_and_replay(model, [batch_of(1), batch_of(2)]))


def test_a_replay_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        merge_and_replay(adapted(bert()), [])
    with pytest.raises(ValueError, match="adapters"):
        merge_and_replay(bert(), [batch_of()])


def test_merging_names_the_layers() -> None:
    model = adapted(bert(), targets=["v"])
    assert merge_adapters(model) == ["blocks.0.attention.v", "blocks.1.attention.v"]
    assert merge_adapters(model) == []


def test_the_shortest_targets_that_mean_the_same() -> None:
    layers = linear_layers(bert())
    every = [f"blocks.{n}.{kind}" for n in (0, 1) for kind in ("attention.v", "attention.q")]
    assert short_names(every, layers) == ("attention.q", "attention.v")
    assert short_names(every[:3], layers) == tuple(sorted(every[:3]))
