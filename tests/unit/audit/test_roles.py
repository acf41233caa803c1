"""Checkpoints of architectures that danlu does not have: whose tensors are what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn import functional as F

from danlu.audit.checkpoint import Checkpoint
from danlu.audit.examine import Question, examine
from danlu.audit.unit_order import OrderTest, order_test
from danlu.audit.units import blocks_of, read_units
from danlu.core.progress import Silent
from danlu.model.weights import save_tensors

D, N, H = 32, 48, 4
Tensors = dict[str, torch.Tensor]

_LLAMA = {
    "vocab_size": 99,
    "hidden_size": D,
    "intermediate_size": N,
    "num_hidden_layers": 2,
    "num_attention_heads": H,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
_GPT = {"vocab_size": 99, "hidden_size": D, "n_layer": 2, "n_head": H}
_EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "n_routed_experts": 4,
}
MAKES: dict[str, tuple[str, dict[str, object]]] = {
    "mistral": ("Mistral", _LLAMA),
    "gemma": ("Gemma", {**_LLAMA, "head_dim": 8}),
    "gemma2": ("Gemma2", {**_LLAMA, "head_dim": 8}),
    "phi3": ("Phi3", {**_LLAMA, "eos_token_id": 1}),
    "glm4": ("Glm4", {**_LLAMA, "head_dim": 8}),
    "falcon-7b": ("Falcon", {"vocab_size": 99, "hidden_size": D, "num_hidden_layers": 2, "num_attention_heads": H}),
    "falcon-40b": (
        "Falcon",
        {
            "vocab_size": 99,
            "hidden_size": D,
            "num_hidden_layers": 2,
            "num_attention_heads": H,
            "num_kv_heads": 2,
            "new_decoder_architecture": True,
        },
    ),
    "gpt-neox": ("GPTNeoX", {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}),
    "opt": (
        "OPT",
        {
            "vocab_size": 99,
            "hidden_size": D,
            "ffn_dim": N,
            "num_hidden_layers": 2,
            "num_attention_heads": H,
            "word_embed_proj_dim": D,
        },
    ),
    "bloom": ("Bloom", _GPT),
    "starcoder": ("GPTBigCode", {"vocab_size": 99, "n_embd": D, "n_layer": 2, "n_head": H}),
    "mpt": ("Mpt", {"vocab_size": 99, "d_model": D, "n_layers": 2, "n_heads": H}),
    "olmo2": ("Olmo2", _LLAMA),
    "cohere": ("Cohere", _LLAMA),
    "mixtral": ("Mixtral", {**_LLAMA, "num_local_experts": 4}),
    "qwen2-moe": (
        "Qwen2Moe",
        {**_LLAMA, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 40},
    ),
    "deepseek": ("DeepseekV3", {**_LLAMA, **_EXPERTS, **_LATENT, "num_key_value_heads": H}),
    "gpt-oss": ("GptOss", {**_LLAMA, "num_local_experts": 4, "head_dim": 8}),
}


def written(folder: Path, make: str) -> tuple[Path, Tensors]:
    """A small random checkpoint, and its tensors as the module has them; every make has a seed of its own."""
    name, values = MAKES[make]
    torch.manual_seed(sorted(MAKES).index(make))
    config = getattr(transformers, f"{name}Config")(**values)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    return folder, model.state_dict()


Expected = Callable[[Tensors], Tensors]


def _plain(prefix: str, **names: str) -> Expected:
    return lambda found: {ours: found[f"{prefix}{theirs}.weight"] for ours, theirs in names.items()}


def _grouped(name: str, groups: int) -> Expected:
    """Values of a matrix in which every group has its queries, a key and a value."""

    def values(found: Tensors) -> Tensors:
        matrix = found[name].reshape(groups, -1, 8, D)
        return {"attention.v": matrix[:, -1].reshape(-1, D), "attention.k": matrix[:, -2].reshape(-1, D)}

    return values


def _phi3(found: Tensors) -> Tensors:
    prefix = "model.layers.1."
    return {
        "attention.v": found[prefix + "self_attn.qkv_proj.weight"][48:],
        "feedforward.gate": found[prefix + "mlp.gate_up_proj.weight"][:N],
        "feedforward.up": found[prefix + "mlp.gate_up_proj.weight"][N:],
    }


def _gemma(found: Tensors) -> Tensors:
    return {"attention_norm": found["model.layers.1.input_layernorm.weight"] + 1}


def _gemma2(found: Tensors) -> Tensors:
    return {"feedforward_norm": found["model.layers.1.pre_feedforward_layernorm.weight"] + 1}


def _deepseek(found: Tensors) -> Tensors:
    prefix = "model.layers.1.self_attn."
    narrow = found[prefix + "kv_a_proj_with_mqa.weight"][:12] * found[prefix + "kv_a_layernorm.weight"][:, None]
    wide = found[prefix + "kv_b_proj.weight"].reshape(H, 16, 12)[:, 8:].reshape(-1, 12)
    return {"attention.v": wide @ narrow, "attention.out": found[prefix + "o_proj.weight"]}


def _gpt_oss(found: Tensors) -> Tensors:
    both = found["model.layers.1.mlp.experts.gate_up_proj"][3]
    return {
        "feedforward.experts.3.gate": both[:, ::2].T,
        "feedforward.experts.3.up": both[:, 1::2].T,
        "feedforward.experts.3.down": found["model.layers.1.mlp.experts.down_proj"][3].T,
    }


def _mixtral(found: Tensors) -> Tensors:
    both = found["model.layers.1.mlp.experts.gate_up_proj"][2]
    return {
        "feedforward.experts.2.gate": both[:N],
        "feedforward.experts.2.up": both[N:],
        "feedforward.experts.2.down": found["model.layers.1.mlp.experts.down_proj"][2],
    }


_LLAMA_NAMES = {
    "attention.q": "self_attn.q_proj",
    "attention.v": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "feedforward.gate": "mlp.gate_proj",
    "feedforward.up": "mlp.up_proj",
    "feedforward.down": "mlp.down_proj",
}
_L = "model.layers.1."
EXPECTED: dict[str, Expected] = {
    "mistral": _plain(
        _L, **_LLAMA_NAMES, attention_norm="input_layernorm", feedforward_norm="post_attention_layernorm"
    ),
    "gemma": _gemma,
    "gemma2": _gemma2,
    "phi3": _phi3,
    "glm4": lambda found: {"feedforward.up": found[_L + "mlp.gate_up_proj.weight"][N:]},
    "falcon-7b": _grouped("transformer.h.1.self_attention.query_key_value.weight", 1),
    "falcon-40b": _grouped("transformer.h.1.self_attention.query_key_value.weight", 2),
    "gpt-neox": _grouped("gpt_neox.layers.1.attention.query_key_value.weight", H),
    "opt": _plain("model.decoder.layers.1.", **{"feedforward.up": "fc1", "feedforward_norm": "final_layer_norm"}),
    "bloom": _grouped("transformer.h.1.self_attention.query_key_value.weight", H),
    "starcoder": lambda found: {"attention.v": found["transformer.h.1.attn.c_attn.weight"][D + 8 :]},
    "mpt": lambda found: {"attention.v": found["transformer.blocks.1.attn.Wqkv.weight"][2 * D :]},
    "olmo2": _plain(_L, **_LLAMA_NAMES),
    "cohere": _plain(_L, **_LLAMA_NAMES, attention_norm="input_layernorm", feedforward_norm="input_layernorm"),
    "mixtral": _mixtral,
    "qwen2-moe": _plain(_L, **{"feedforward.shared.down": "mlp.shared_expert.down_proj"}),
    "deepseek": _deepseek,
    "gpt-oss": _gpt_oss,
}


@pytest.mark.parametrize("make", MAKES)
def test_roles_are_found_by_name(tmp_path: Path, make: str) -> None:
    folder, theirs = written(tmp_path, make)
    with Checkpoint(folder) as found:
        assert found.guessed == {}
        assert found.n_blocks == 2
        assert found.traits.d_value == 8
        assert "embedding.tokens.weight" in found
        for name, tensor in EXPECTED[make](theirs).items():
            torch.testing.assert_close(found.read(f"blocks.1.{name}.weight"), tensor, rtol=1e-6, atol=1e-6)
        assert all(found.shape(name) == tuple(found.read(name).shape) for name in found.names)
        assert len(blocks_of(found, "values")) == 2
        for component in ("feed-forward", "values"):
            itself = order_test(found, found, component)
            assert isinstance(itself, OrderTest), itself
            # One head of four tested channels has 24 orders, two have 576.
            assert itself.p <= (0.1 if itself.n_units == 8 and itself.component == "values" else 0.004)
            assert itself.blocks == itself.origins


def test_every_expert_is_a_block_of_units(tmp_path: Path) -> None:
    folder, _ = written(tmp_path, "qwen2-moe")
    with Checkpoint(folder) as found:
        names = [str(block) for block in blocks_of(found, "feed-forward")]
        assert names[:6] == ["0 shared", "0 expert 0", "0 expert 1", "0 expert 2", "0 expert 3", "1 shared"]
        assert read_units(found, "feed-forward", 1).vectors.shape == (1, 24, 3, D)


def test_a_dense_model_is_found_in_the_experts_made_of_it(tmp_path: Path) -> None:
    """Every expert starts as the dense model's part and is trained a little."""
    (tmp_path / "dense").mkdir()
    dense, theirs = written(tmp_path / "dense", "mistral")
    experts, _ = written(tmp_path / "experts", "mixtral")
    draw = torch.Generator().manual_seed(3)
    tensors: Tensors = {}
    with Checkpoint(experts) as found:
        for tensor in found.stored:
            tensors[tensor.name] = tensor.read().clone()
    names = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
    for name in tensors:
        for ours, origin in names.items():
            if name.endswith(f".{ours}.weight"):
                layer = name.split(".")[2]
                copied = theirs[f"model.layers.{layer}.mlp.{origin}.weight"]
                tensors[name] = copied + 0.3 * copied.std() * torch.randn(copied.shape, generator=draw)
    save_tensors(tensors, experts / "model.safetensors", {"format": "pt"})
    with Checkpoint(experts) as suspect, Checkpoint(dense) as reference:
        test = order_test(suspect, reference, "feed-forward")
        assert isinstance(test, OrderTest), test
        assert test.p == 1 / (test.n_orders + 1)
        assert test.blocks[5] == "1 expert 1"
        assert test.origins == ("0",) * 4 + ("1",) * 4
        other = order_test(suspect, reference, "values")
        assert isinstance(other, OrderTest), other
        assert other.p > 0.001, "attention is another model's"
    found = examine(Question(suspect=experts, reference=dense), Silent())
    assert found.verdict == "PROVEN"
    assert "depth changed" not in found.types


def test_parts_of_a_reference_that_are_guessed_are_not_tested(tmp_path: Path) -> None:
    folder, theirs = written(tmp_path / "known", "mistral")
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text((folder / "config.json").read_text())
    words = {"self_attn": "one", "mlp": "two", "proj": "x"}
    tensors = {}
    for name, tensor in theirs.items():
        renamed = name
        for ours, other in words.items():
            renamed = renamed.replace(ours, other)
        tensors[renamed.replace("gate_x", "p").replace("up_x", "q").replace("down_x", "r")] = tensor.clone()
    save_tensors(tensors, strange / "model.safetensors", {"format": "pt"})
    with Checkpoint(strange) as guessed, Checkpoint(folder) as known:
        assert "by their shape alone" in str(order_test(known, guessed, "feed-forward"))
        test = order_test(guessed, known, "feed-forward")
        assert isinstance(test, OrderTest), test
        assert test.p == 1 / (test.n_orders + 1)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    save_tensors({"embed.weight": torch.randn(9, 4)}, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text('{"model_type": "nothing known"}')
    with Checkpoint(tmp_path) as found:
        assert "no Transformer blocks" in str(order_test(found, found, "feed-forward"))


def test_a_model_without_a_number_of_heads_is_tested_by_its_units_alone(tmp_path: Path) -> None:
    folder, theirs = written(tmp_path, "mistral")
    (folder / "config.json").write_text('{"model_type": "new"}')
    with Checkpoint(folder) as found:
        assert isinstance(order_test(found, found, "feed-forward"), OrderTest)
        assert "values" in str(order_test(found, found, "values"))
        assert torch.equal(
            F.normalize(found.read("blocks.0.feedforward.down.weight"), dim=0),
            F.normalize(theirs["model.layers.0.mlp.down_proj.weight"], dim=0),
        )
