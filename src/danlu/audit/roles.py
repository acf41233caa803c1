"""What the tensors of a checkpoint are for, whatever its architecture: found by their names and shapes.

A block's matrices are told apart by the names that architectures have for them, and where a name is none of those by
shape and order. What the config says of sizes helps; another model is never looked at. Names are ours then::

    embedding.tokens.weight   norm.weight   head.linear.weight
    blocks.3.attention_norm.weight   blocks.3.attention.{q,k,v,out}.weight
    blocks.3.feedforward_norm.weight   blocks.3.feedforward.{gate,up,down}.weight
    blocks.3.feedforward.experts.7.{gate,up,down}.weight   blocks.3.feedforward.shared.{gate,up,down}.weight

Tensors without a role keep the names that the file has. A role that is found by shape alone is not *sure*: in a suspect
a wrong guess makes a test weaker, never wrong, but a reference's guessed parts are not tested, for channels of keys
that are taken for values have no order of chance.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from danlu.audit.block_roles import BlockRoles, lies_transposed
from danlu.audit.packed import Matrix
from danlu.audit.parts import Part, Tail, Traits, setting

__all__ = ["find_roles"]

_LEAVES = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
_IGNORED = re.compile(
    r"(.*\.)?(inv_freq|rotary_emb\.\w+|position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|attn_mask)"
)
"""Buffers, which hold nothing learnt."""
_TOKENS = re.compile(
    r"(.*\.)?(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|shared|tokens|embd?|embeddings?)"
)
_POSITIONS = re.compile(r"(.*\.)?(embed_positions|wpe|position_embeddings|positions\.vectors)")
_HEAD = re.compile(r"(.*\.)?(lm_head|embed_out|output|output_layer|head\.linear)")
_LAST_NORM = re.compile(r"(.*\.)?(norm|ln_f|final_layer_?norm|final_norm|norm_f)")
_NORMS = {
    "attention_norm": re.compile(
        r"input_layernorm|ln_?1|attention_norm|self_attn_layer_norm|norm_?1|ln_attn|input_norm|pre_norm|attn_norm"
        r"|layer\.0\.layer_norm|attention\.output\.layernorm|sa_layer_norm|layernorm_before"
    ),
    "feedforward_norm": re.compile(
        r"pre_feedforward_layernorm|ln_?2|ffn_norm|feedforward_norm|final_layer_norm|norm_?2|ln_mlp|mlp_norm"
        r"|pre_mlp_layernorm|layer\.[12]\.layer_norm|output\.layernorm|output_layer_norm|layernorm_after"
    ),
}
_AFTER_ATTENTION = "post_attention_layernorm"
"""The norm before the feed-forward part, where no other one is; else what follows attention."""
_AFTER = re.compile(r"attention\.output\.layernorm|output\.layernorm|sa_layer_norm|output_layer_norm")
"""Norms that follow the sum with what went around;"""
_AFTER_TYPES = {"bart", "openai-gpt", "xlm"}
"""and makes that have them under other names."""
_OTHER_NORMS = re.compile(r"(.*\.)?(post_\w+|[qk]_?(layer)?_?norm|[qk]_ln|layernorm_embedding|\w+_attn_layer_norm)")
_PLUS_ONE = re.compile(r"gemma[23]?(_text)?|t5gemma\w*|recurrent_gemma|qwen3_next|nemotron")
"""Makes whose norms multiply by 1 + g."""

Blocks = list[list[Tail]]


def find_roles(matrices: Iterable[Matrix], settings: Mapping[str, Any]) -> tuple[dict[str, Part], Traits]:
    """Find what every tensor is for.

    Args:
        matrices: Tensors of the model.
        settings: Its ``config.json``.

    Returns:
        Our name -> the part of a tensor that it is; and what the tests must know of the architecture.
    """
    settings = {**settings, **(settings.get("text_config") or {})}
    kept = [matrix for matrix in matrices if not _IGNORED.fullmatch(matrix.name)]
    blocks, others, width = _blocks(kept, settings)
    tails = [tail for block in blocks for tail in block]
    n_heads = setting(settings, "num_attention_heads", "n_head", "n_heads", "num_heads")
    roles = BlockRoles(width, lies_transposed(tails, width), n_heads, settings)
    parts, values = _outside(others, width), []
    for number, block in enumerate(blocks):
        found, d_value = roles(block)
        values.append(d_value)
        found |= _norms(block, width)
        parts |= {f"blocks.{number}.{name}": part for name, part in found.items()}
    if _PLUS_ONE.fullmatch(str(settings.get("model_type"))):
        parts = {name: _one_more(part) if "norm.weight" in name else part for name, part in parts.items()}
    taken = {part.source.name for part in parts.values()}
    parts |= {matrix.name: Part(matrix) for matrix in kept if matrix.name not in taken}
    after = any(_AFTER.fullmatch(tail.path) for tail in tails) or settings.get("model_type") in _AFTER_TYPES
    return parts, Traits(
        d_value=next((value for value in values if value is not None), None),
        rms=not _takes_the_mean(tails, width, settings),
        norm_first=not after and settings.get("do_layer_norm_before", True) is not False,
    )


def _blocks(matrices: Sequence[Matrix], settings: Mapping[str, Any]) -> tuple[Blocks, list[Tail], int]:
    """The tensors of every block, those outside, and the width of the sequence.

    A model may have several stacks of blocks, a decoder's and an encoder's, or one that sees pictures. Those as wide as
    the largest count as blocks.
    """
    stacks: defaultdict[str, defaultdict[int, list[Tail]]] = defaultdict(lambda: defaultdict(list))
    others = []
    for matrix in matrices:
        match = re.match(r"((?:[^.]+\.)*?)(\d+)\.(.+)", matrix.name)
        if match is None:
            others.append(Tail(_module(matrix.name), matrix))
        else:
            stacks[match[1]][int(match[2])].append(Tail(_module(match[3]).lower(), matrix))
    widths = {
        prefix: _width([tail for block in stack.values() for tail in block], settings)
        for prefix, stack in stacks.items()
    }
    sizes = {
        prefix: sum(tail.matrix.size for block in stack.values() for tail in block) for prefix, stack in stacks.items()
    }
    width = widths[max(sizes, key=lambda prefix: sizes[prefix])] if sizes else 0
    blocks: Blocks = []
    for prefix in sorted(stacks):
        stack = stacks[prefix]
        if widths[prefix] == width and width:
            blocks += [sorted(stack[number], key=lambda tail: _natural(tail.matrix.name)) for number in sorted(stack)]
        else:
            others += [Tail(_module(tail.matrix.name), tail.matrix) for block in stack.values() for tail in block]
    return blocks, others, width


def _module(name: str) -> str:
    """The module of a tensor; stacked experts are their own."""
    module, _, leaf = name.rpartition(".")
    return module if leaf in _LEAVES else name


def _natural(name: str) -> list[str | int]:
    """Sorts ``layer.10`` after ``layer.9``."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _width(tails: Sequence[Tail], settings: Mapping[str, Any]) -> int:
    """The size that most matrices have: all but inner ones read the sequence or write it."""
    told = setting(settings, "hidden_size", "n_embd", "d_model", "dim")
    counts = Counter(size for tail in tails if len(tail.matrix.shape) > 1 for size in {*tail.matrix.shape[-2:]})
    return max(counts, key=lambda size: (counts[size], size == told, -size), default=0)


def _norms(block: Sequence[Tail], width: int) -> dict[str, Part]:
    """The norms before the two halves of a block; one alone is before both."""
    vectors = {tail.path: tail.matrix for tail in block if tail.matrix.shape == (width,) and _is(tail, "weight")}
    biases = {tail.path: tail.matrix for tail in block if tail.matrix.shape == (width,) and _is(tail, "bias")}
    found = {role: path for role, pattern in _NORMS.items() for path in sorted(vectors) if pattern.fullmatch(path)}
    after = any("post_feedforward" in path for path in vectors)
    if "feedforward_norm" not in found and _AFTER_ATTENTION in vectors and not after:
        found["feedforward_norm"] = _AFTER_ATTENTION
    unknown = [path for path in vectors if path not in found.values() and not _OTHER_NORMS.fullmatch(path)]
    sure = set(found.values())
    for role in _NORMS:
        if role not in found and unknown and not after:
            found[role] = unknown.pop(0)
    if "attention_norm" in found and not after:
        found.setdefault("feedforward_norm", found["attention_norm"])
    parts = {f"{role}.weight": Part(vectors[path], sure=path in sure) for role, path in found.items()}
    return parts | {
        f"{role}.bias": Part(biases[path], sure=path in sure) for role, path in found.items() if path in biases
    }


def _is(tail: Tail, leaf: str) -> bool:
    return _LEAVES.get(tail.matrix.name.rpartition(".")[2]) == leaf


def _one_more(part: Part) -> Part:
    return Part(part.source, part.expert, part.transposed, part.rows, plus_one=True, sure=part.sure)


def _outside(others: Sequence[Tail], width: int) -> dict[str, Part]:
    """Token vectors, learnt positions, the last norm, and what scores the tokens."""
    found: dict[str, Part] = {}
    tables = [tail for tail in others if len(tail.matrix.shape) == 2 and tail.matrix.shape[1] == width]
    roles = {"embedding.tokens": _TOKENS, "embedding.positions.vectors": _POSITIONS, "head.linear": _HEAD}
    for role, pattern in roles.items():
        for tail in tables:
            if pattern.fullmatch(tail.path):
                found.setdefault(f"{role}.weight", Part(tail.matrix))
    if "embedding.tokens.weight" not in found:
        taken = {part.source.name for part in found.values()}
        left = [tail.matrix for tail in tables if tail.matrix.name not in taken and tail.matrix.shape[0] > width]
        if left:
            found["embedding.tokens.weight"] = Part(max(left, key=lambda matrix: matrix.shape[0]), sure=False)
    for tail in others:
        if _LAST_NORM.fullmatch(tail.path) and tail.matrix.shape == (width,):
            found.setdefault(f"norm.{_LEAVES[tail.matrix.name.rpartition('.')[2]]}", Part(tail.matrix))
    return found


def _takes_the_mean(tails: Sequence[Tail], width: int, settings: Mapping[str, Any]) -> bool:
    """Whether its norms do: those with a bias, or whose config calls them so."""
    if "rms_norm_eps" in settings:
        return False
    names = ("layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_epsilon")
    biased = any(
        tail.matrix.shape == (width,) and _is(tail, "bias") and "norm" in tail.path.rpartition(".")[2] for tail in tails
    )
    return biased or any(name in settings for name in names)
