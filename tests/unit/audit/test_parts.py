from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from audit_models import drawn, folder_of
from danlu.audit.checkpoint import Checkpoint
from danlu.audit.content import compare_content
from danlu.audit.quantisation import scheme_of
from danlu.audit.verdict import Calibrated, decide, holm
from danlu.core.seeds import Seeds
from danlu.model.init import initial_weights, standard_rows
from danlu.model.weights import save_tensors


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    config = LlamaConfig(
        vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def test_a_checkpoint_of_transformers_is_read_under_our_names(llama: Path) -> None:
    theirs = LlamaForCausalLM.from_pretrained(llama).state_dict()
    with Checkpoint(llama) as found:
        assert found.n_blocks == 2
        assert found.guessed == {}
        assert all(found.shape(name) == tuple(found.read(name).shape) for name in found.names)
        read = found.read("blocks.1.feedforward.gate.weight")
    assert torch.equal(read, theirs["model.layers.1.mlp.gate_proj.weight"])


def test_tensors_of_other_names_are_found_by_layer_and_shape(llama: Path) -> None:
    with Checkpoint(llama) as found:
        tensors = {tensor.name: tensor.read().clone() for tensor in found.stored}
        before = {name: found.read(name) for name in found.names}
    strange = {"mlp.gate": "x.a", "mlp.up": "x.b", "mlp.down": "x.c", "input_layernorm": "x.d"}
    renamed = {}
    for name, each in tensors.items():
        for ours, theirs in strange.items():
            name = name.replace(ours, theirs)
        renamed[name] = each
    save_tensors(renamed, llama / "model.safetensors", {"format": "pt"})
    with Checkpoint(llama) as found:
        assert len(found.guessed) == 8
        assert found.guessed["model.layers.1.x.c_proj.weight"] == "blocks.1.feedforward.down.weight"
        after = {name: found.read(name) for name in found.names}
    assert after.keys() == before.keys()
    assert torch.equal(after["blocks.1.feedforward.down.weight"], before["blocks.1.feedforward.down.weight"]), (
        "the only one of its shape"
    )


def test_content_does_not_depend_on_names(llama: Path, tmp_path: Path) -> None:
    other = folder_of(tmp_path / "other", drawn("x"))
    with Checkpoint(llama) as one, Checkpoint(llama) as same, Checkpoint(other) as another:
        assert compare_content(one, same).share == 1
        assert compare_content(one, same).root == compare_content(one, same).reference_root
        assert compare_content(one, another).rounded_share == 0


def test_initial_weights_are_those_that_a_model_starts_from() -> None:
    model = drawn("a")
    for name, tensor in initial_weights(model, Seeds.new("a")):
        assert torch.equal(tensor.float(), model.get_parameter(name)), name
    name = "blocks.0.feedforward.up.weight"
    few = standard_rows(Seeds.new("a"), name, (3, 64))
    assert (few == standard_rows(Seeds.new("a"), name, (96, 64))[:3]).all(), "few rows are the first of more"


def test_quantised_matrices_show_their_grid_and_others_none() -> None:
    m = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    assert scheme_of(m) is None
    assert scheme_of(m.bfloat16().float()) is None
    step = m.abs().amax(1, keepdim=True) / 127
    assert scheme_of((m / step).round() * step) == "int8 by row"
    groups = m.reshape(-1, 64)
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    step = (high - low) / 15
    assert scheme_of((((groups - low) / step).round() * step + low).reshape(m.shape)) == "int4 in groups of 64"
    assert scheme_of(m.to(torch.float8_e4m3fn).float()) == "fp8"
    assert scheme_of(torch.where(m.abs() > 1.5, m, 0.0)) is None, "pruned, not quantised"


def test_holm_and_the_verdict() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    far, near = Calibrated(value=0.9, controls=(0.1, 0.12, 0.11)), Calibrated(value=0.13, controls=(0.1, 0.12, 0.11))
    assert decide({"a": 2e-5, "b": 0.5}, {}, False)[0] == "PROVEN"
    assert decide({"a": 8e-4, "b": 0.5}, {}, False)[0] == "NO EVIDENCE", "two tests were made"
    assert decide({"a": 0.5}, {"clones": far}, True)[0] == "STRONG"
    assert decide({"a": 2e-5}, {"clones": far}, True, public_seed=True)[0] == "SHARED START", "others may have it"
    assert decide({"a": 0.5}, {"clones": far}, True, public_seed=True)[0] == "CONTEXT ONLY"
    assert decide({"a": 0.5}, {"clones": near}, True)[0] == "CONTEXT ONLY"
    assert decide({}, {}, False)[0] == "ABSTAIN"
    assert not Calibrated(value=0.9, controls=(0.1,)).beyond, "one control shows no spread"


def test_gpt2_s_fused_and_transposed_matrices_are_read_as_ours(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=99, n_positions=16, n_embd=32, n_layer=2, n_head=4)).save_pretrained(tmp_path)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path).state_dict()
    with Checkpoint(tmp_path) as found:
        assert all(found.shape(name) == tuple(found.read(name).shape) for name in found.names)
        value = found.read("blocks.1.attention.v.weight")
        up = found.read("blocks.0.feedforward.up.weight")
    assert torch.equal(value, theirs["transformer.h.1.attn.c_attn.weight"].T[64:])
    assert torch.equal(up, theirs["transformer.h.0.mlp.c_fc.weight"].T)
