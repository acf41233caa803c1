"""What our modules and parameters are called in transformers: one table an architecture, read both ways."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import nn

from danlu.model.base import Task

__all__ = ["BERT", "GPT2", "LLAMA", "NameMap", "Place"]

Rows = tuple[tuple[str, str], ...]
"""Paths of modules, ours and theirs; ``{}`` is the number of a block."""

Layout = Literal["transposed", "flipped"]
"""How their tensor lies: its matrix transposed, or its rows in the opposite order."""


class Place(NamedTuple):
    """One tensor of theirs.

    Attributes:
        ours: The parameters of ours that are its rows, in the order in which they stand in the module; mostly one.
        layout: How it lies; None: as ours.
    """

    ours: tuple[str, ...]
    layout: Layout | None = None

    def join(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Their tensor of ours."""
        return self._laid(torch.cat(list(parts)) if len(parts) > 1 else parts[0])

    def split(self, theirs: torch.Tensor, n_rows: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """Our tensors, each of so many rows, of theirs."""
        return torch.split(self._laid(theirs), list(n_rows))

    def shape(self, parts: Sequence[torch.Tensor]) -> list[int]:
        """The shape that theirs must have."""
        rows, rest = sum(len(part) for part in parts), list(parts[0].shape[1:])
        return [*rest, rows] if self.layout == "transposed" else [rows, *rest]

    def _laid(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.layout == "flipped":
            return tensor.flip(0)
        return tensor.T if self.layout == "transposed" and tensor.ndim == 2 else tensor


@dataclass(frozen=True, kw_only=True)
class NameMap:
    """The names of one architecture.

    Attributes:
        rows: The backbone.
        heads: What answers each task.
        prefix: What the names of the backbone begin with; a file that holds a backbone alone has none of it.
        outside: What the names of everything else begin with.
        optional: Parts that a file or a module may lack as a whole, because they belong to another task, and the part
            that each stands on, without which it means nothing.
        by_class: The part whose rows are classes: those of another task where they are not as many.
        positions: Their tensor of learnt positions; a model that sees shorter texts takes the first of them.
        tokens: Their tensor of token vectors.
        copies: Their tensors that are another one once more.
        ignored: Their tensors that hold nothing learnt (patterns).
        layouts: Modules of theirs that lie differently.
        old: Endings that older files have, and what they are now.
    """

    rows: Rows
    heads: Mapping[Task, Rows]
    prefix: str
    outside: tuple[str, ...]
    tokens: str
    optional: Mapping[str, str | None]
    copies: Mapping[str, str]
    positions: str | None = None
    by_class: str | None = None
    ignored: tuple[str, ...] = ()
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    old: Mapping[str, str] = field(default_factory=dict)

    def rename(self, path: str, task: Task) -> str:
        """The path in transformers of a module of ours.

        Raises:
            KeyError: It has none, or another order of rows, which only :meth:`places` can undo.
        """
        pattern, number = _pattern(path)
        theirs = self._table(task)[pattern]
        if self.layouts.get(theirs) == "flipped":
            raise KeyError(path)
        return theirs.format(number)

    def places(self, module: nn.Module, task: Task) -> tuple[dict[str, Place], list[str]]:
        """Every tensor of theirs that a module of ours is made of, and our parameters that have no place."""
        found: dict[str, Place] = {}
        lost = []
        table = self._table(task)
        for name, _ in module.named_parameters():
            owner, _, leaf = name.rpartition(".")
            pattern, number = _pattern(owner)
            if pattern not in table:
                lost.append(name)
                continue
            theirs = f"{table[pattern].format(number)}.{leaf}"
            before = found[theirs].ours if theirs in found else ()
            found[theirs] = Place((*before, name), self.layouts.get(table[pattern]))
        return found, lost

    def canonical(self, name: str) -> str:
        """The name of a file's tensor as newer files that hold a backbone with its head have it."""
        for ending, now in self.old.items():
            if name.endswith(ending):
                name = name.removesuffix(ending) + now
        return name if name.startswith((self.prefix, *self.outside)) else self.prefix + name

    def is_ignored(self, name: str) -> bool:
        """Whether a tensor of theirs holds nothing learnt."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)

    def part(self, name: str) -> str | None:
        """The optional part that a tensor of theirs belongs to."""
        return next((part for part in self.optional if name.startswith(part)), None)

    def _table(self, task: Task) -> dict[str, str]:
        return dict([*self.rows, *self.heads.get(task, ())])


def _pattern(path: str) -> tuple[str, str]:
    """A path with ``{}`` for the number of its block, and that number: ``blocks.3.norm`` -> ``blocks.{}.norm``, 3."""
    match = re.search(r"(?<=\.)\d+(?=\.)", path)
    return (path, "") if match is None else (f"{path[: match.start()]}{{}}{path[match.end() :]}", match[0])


_BERT_LAYER, _GPT2_LAYER, _LLAMA_LAYER = "bert.encoder.layer.{}.", "transformer.h.{}.", "model.layers.{}."

BERT = NameMap(
    rows=(
        ("embedding.tokens", "bert.embeddings.word_embeddings"),
        ("embedding.positions.vectors", "bert.embeddings.position_embeddings"),
        ("embedding.segments", "bert.embeddings.token_type_embeddings"),
        ("embedding.norm", "bert.embeddings.LayerNorm"),
        ("blocks.{}.attention.q", _BERT_LAYER + "attention.self.query"),
        ("blocks.{}.attention.k", _BERT_LAYER + "attention.self.key"),
        ("blocks.{}.attention.v", _BERT_LAYER + "attention.self.value"),
        ("blocks.{}.attention.out", _BERT_LAYER + "attention.output.dense"),
        ("blocks.{}.attention_norm", _BERT_LAYER + "attention.output.LayerNorm"),
        ("blocks.{}.feedforward.up", _BERT_LAYER + "intermediate.dense"),
        ("blocks.{}.feedforward.down", _BERT_LAYER + "output.dense"),
        ("blocks.{}.feedforward_norm", _BERT_LAYER + "output.LayerNorm"),
        ("pooler.linear", "bert.pooler.dense"),
    ),
    heads={
        "text-classification": (("head.linear", "classifier"),),
        "masked-language-modelling": (
            ("head", "cls.predictions"),  # the bias of every token
            ("head.linear", "cls.predictions.transform.dense"),
            ("head.norm", "cls.predictions.transform.LayerNorm"),
            ("head.pair", "cls.seq_relationship"),
        ),
    },
    prefix="bert.",
    outside=("cls.", "classifier.", "qa_outputs."),
    tokens="bert.embeddings.word_embeddings.weight",
    positions="bert.embeddings.position_embeddings.weight",
    optional={
        "bert.pooler.": None,
        "cls.predictions.": None,
        "cls.seq_relationship.": "bert.pooler.",
        "classifier.": "bert.pooler.",
        "qa_outputs.": None,
    },
    by_class="classifier.",
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    ignored=(r"bert\.embeddings\.(position|token_type)_ids",),
    # Theirs counts from "it follows"; with us 1 says yes.
    layouts={"cls.seq_relationship": "flipped"},
    old={"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"},
)

GPT2 = NameMap(
    rows=(
        ("embedding.tokens", "transformer.wte"),
        ("embedding.positions.vectors", "transformer.wpe"),
        ("blocks.{}.attention_norm", _GPT2_LAYER + "ln_1"),
        ("blocks.{}.attention.q", _GPT2_LAYER + "attn.c_attn"),
        ("blocks.{}.attention.k", _GPT2_LAYER + "attn.c_attn"),
        ("blocks.{}.attention.v", _GPT2_LAYER + "attn.c_attn"),
        ("blocks.{}.attention.out", _GPT2_LAYER + "attn.c_proj"),
        ("blocks.{}.feedforward_norm", _GPT2_LAYER + "ln_2"),
        ("blocks.{}.feedforward.up", _GPT2_LAYER + "mlp.c_fc"),
        ("blocks.{}.feedforward.down", _GPT2_LAYER + "mlp.c_proj"),
        ("norm", "transformer.ln_f"),
    ),
    heads={"language-modelling": (("head.linear", "lm_head"),)},
    prefix="transformer.",
    outside=("lm_head.", "score.", "classifier.", "multiple_choice_head."),
    tokens="transformer.wte.weight",
    positions="transformer.wpe.weight",
    optional={"score.": None, "classifier.": None, "multiple_choice_head.": None},
    copies={"lm_head.weight": "transformer.wte.weight"},
    ignored=(r"transformer\.h\.\d+\.attn\.(masked_)?bias",),
    layouts=dict.fromkeys(
        (_GPT2_LAYER + module for module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")), "transposed"
    ),
)

LLAMA = NameMap(
    rows=(
        ("embedding.tokens", "model.embed_tokens"),
        ("blocks.{}.attention_norm", _LLAMA_LAYER + "input_layernorm"),
        ("blocks.{}.attention.q", _LLAMA_LAYER + "self_attn.q_proj"),
        ("blocks.{}.attention.k", _LLAMA_LAYER + "self_attn.k_proj"),
        ("blocks.{}.attention.v", _LLAMA_LAYER + "self_attn.v_proj"),
        ("blocks.{}.attention.out", _LLAMA_LAYER + "self_attn.o_proj"),
        ("blocks.{}.attention.q_norm", _LLAMA_LAYER + "self_attn.q_norm"),
        ("blocks.{}.attention.k_norm", _LLAMA_LAYER + "self_attn.k_norm"),
        ("blocks.{}.feedforward_norm", _LLAMA_LAYER + "post_attention_layernorm"),
        ("blocks.{}.feedforward.gate", _LLAMA_LAYER + "mlp.gate_proj"),
        ("blocks.{}.feedforward.up", _LLAMA_LAYER + "mlp.up_proj"),
        ("blocks.{}.feedforward.down", _LLAMA_LAYER + "mlp.down_proj"),
        ("norm", "model.norm"),
    ),
    heads={"language-modelling": (("head.linear", "lm_head"),)},
    prefix="model.",
    outside=("lm_head.", "score.", "qa_outputs."),
    tokens="model.embed_tokens.weight",
    optional={"score.": None, "qa_outputs.": None},
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    ignored=(r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",),
)
