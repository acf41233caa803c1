"""The architectures of transformers that are makes of our families: one declaration each, read both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from danlu.model.base import FamilyConfig, Task
from danlu.model.pretrained.names import BERT, GPT2, LLAMA, NameMap

__all__ = ["ARCHITECTURES", "Architecture", "Key", "effective"]


@dataclass(frozen=True)
class Key:
    """A value of ours in their ``config.json``.

    Attributes:
        names: What it is called there; read from the first, written to all.
        default: What it is where the file has no such key; a key without a default must be there.
    """

    names: tuple[str, ...]
    default: Any = ...


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture of transformers.

    Attributes:
        name: What ``config.json`` calls it (``model_type``).
        family: The family of ours that it is a make of.
        classes: The class of transformers that does a task of ours.
        keys: Our values, and where they stand in ``config.json``.
        make: The values of ours that it stands for, given all of them.
        training: Values of ours for training that fit it, and that nothing depends on.
        activations: Theirs -> ours.
        fixed: Keys that may be in ``config.json``, and the one value that our module is right for.
        free: Values of ours that only matter in training, or that a recipe may choose otherwise.
        names: What the parameters are called.
        rotary: Whether ``config.json`` tells of rotary positions.
    """

    name: str
    family: str
    classes: Mapping[Task, str]
    keys: Mapping[str, Key]
    make: Callable[[Mapping[str, Any]], dict[str, Any]]
    activations: Mapping[str, str]
    training: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    free: frozenset[str]
    names: NameMap
    rotary: bool = False


def effective(config: FamilyConfig) -> dict[str, Any]:
    """The values of a config, those that are left open filled in."""
    values = config.plain()
    if config.family == "gpt":
        if values["qkv_bias"] is None:
            values["qkv_bias"] = values["bias"]
        values["n_kv_heads"] = values["n_kv_heads"] or values["n_heads"]
        values["d_head"] = values["d_head"] or values["d_model"] // values["n_heads"]
    return values


def _keys(**names: str | tuple[str, Any]) -> dict[str, Key]:
    """Ours -> theirs, with a default where there is one; names that are written alike stand in one word."""
    rows = {ours: (theirs, ...) if isinstance(theirs, str) else theirs for ours, theirs in names.items()}
    return {ours: Key(tuple(theirs.split()), default) for ours, (theirs, default) in rows.items()}


_GELU = {"gelu": "gelu", "gelu_new": "gelu-tanh", "gelu_pytorch_tanh": "gelu-tanh", "relu": "relu"}
_NO_CROSS = {"is_encoder_decoder": False, "add_cross_attention": False, "pruned_heads": {}}
"""Keys that any of them may have, with the value that changes nothing."""
_FREE = frozenset({"family", "size", "from", "embedding_from", "max_len", "dropout"})

_BERT = Architecture(
    name="bert",
    family="bert",
    classes={
        "text-classification": "BertForSequenceClassification",
        "masked-language-modelling": "BertForPreTraining",
    },
    keys=_keys(
        d_model="hidden_size",
        n_layers="num_hidden_layers",
        n_heads="num_attention_heads",
        d_ff="intermediate_size",
        max_len="max_position_embeddings",
        n_segments=("type_vocab_size", 2),
        norm_eps=("layer_norm_eps", 1e-12),
        activation=("hidden_act", "gelu"),
        dropout=("hidden_dropout_prob", 0.1),
        block_dropout=("attention_probs_dropout_prob", 0.1),
    ),
    make=lambda values: {
        "positions": "learned",
        "norm_first": False,
        "pooling": "first",
        "n_segments": values["n_segments"] or 2,
    },
    training={"token_dropout": 0.0, "embedding_from": "random"},
    activations=_GELU,
    fixed={
        **_NO_CROSS,
        "is_decoder": False,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
    },
    free=_FREE | {"block_dropout", "token_dropout", "pooling"},
    names=BERT,
)

_GPT2 = Architecture(
    name="gpt2",
    family="gpt",
    classes={"language-modelling": "GPT2LMHeadModel"},
    keys=_keys(
        d_model="n_embd",
        n_layers="n_layer",
        n_heads="n_head",
        d_ff=("n_inner", None),
        max_len="n_positions",
        norm_eps=("layer_norm_epsilon", 1e-5),
        activation=("activation_function", "gelu_new"),
        tie_embeddings=("tie_word_embeddings", True),
        dropout=("resid_pdrop embd_pdrop attn_pdrop", 0.1),
    ),
    make=lambda values: {
        "positions": "learned",
        "norm": "layer",
        "bias": True,
        "qkv_bias": True,
        "qk_norm": False,
        "n_kv_heads": values["n_heads"],
        "d_head": values["d_model"] // values["n_heads"],
        "d_ff": values["d_ff"] or 4 * values["d_model"],
    },
    activations=_GELU,
    fixed={**_NO_CROSS, "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
    free=_FREE | {"rope_base", "rope_scaling"},  # it has no rotary positions
    names=GPT2,
)

_LLAMA_KEYS = _keys(
    d_model="hidden_size",
    n_layers="num_hidden_layers",
    n_heads="num_attention_heads",
    n_kv_heads=("num_key_value_heads", None),
    d_head=("head_dim", None),
    d_ff="intermediate_size",
    max_len="max_position_embeddings",
    norm_eps=("rms_norm_eps", 1e-6),
    activation=("hidden_act", "silu"),
    tie_embeddings=("tie_word_embeddings", False),
    dropout=("attention_dropout", 0.0),
)
_LLAMA_MAKE = {"positions": "rotary", "norm": "rms"}
_GATED = {"silu": "swiglu", "swish": "swiglu"}

_LLAMA = Architecture(
    name="llama",
    family="gpt",
    classes={"language-modelling": "LlamaForCausalLM"},
    keys={**_LLAMA_KEYS, **_keys(bias=("attention_bias mlp_bias", False))},
    make=lambda values: {
        **_LLAMA_MAKE,
        "qkv_bias": values["bias"],
        "qk_norm": False,
        "d_model": values["d_model"] - values["d_model"] % values["n_heads"],  # transformers refuses any other
    },
    activations=_GATED,
    free=_FREE,
    names=LLAMA,
    rotary=True,
)

_QWEN2 = Architecture(
    name="qwen2",
    family="gpt",
    classes={"language-modelling": "Qwen2ForCausalLM"},
    keys=_LLAMA_KEYS,
    make=lambda _: {**_LLAMA_MAKE, "bias": False, "qkv_bias": True, "qk_norm": False},
    activations=_GATED,
    fixed={"use_sliding_window": False},
    free=_FREE,
    names=LLAMA,
    rotary=True,
)

_QWEN3 = Architecture(
    name="qwen3",
    family="gpt",
    classes={"language-modelling": "Qwen3ForCausalLM"},
    keys={**_LLAMA_KEYS, **_keys(d_head=("head_dim", 128))},
    make=lambda _: {**_LLAMA_MAKE, "bias": False, "qkv_bias": False, "qk_norm": True},
    activations=_GATED,
    fixed={"use_sliding_window": False, "attention_bias": False},
    free=_FREE,
    names=LLAMA,
    rotary=True,
)

ARCHITECTURES = {each.name: each for each in (_BERT, _GPT2, _LLAMA, _QWEN2, _QWEN3)}
"""By ``model_type``, the plainest of a family first."""
