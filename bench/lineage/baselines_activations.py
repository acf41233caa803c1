"""Published measures of how alike two models are that run both of them on the same prompts.

The papers use prompts of their own (TruthfulQA, WikiText, beginnings of sentences). Here they are texts that the caller
gives, or, without any, rows of tokens drawn at random from those that both models know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional as F

from baselines_weights import fisher, match, spearman_p
from danlu.audit.checkpoint import Checkpoint
from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.model.base import Model, Signature, Task, text_config
from danlu.model.module import build_module
from danlu.model.pretrained.config import read_config
from scores import UndefinedError, n_tokens, read, shared_ids

__all__ = ["agreement", "linear_cka", "phi_match", "reef"]

_N_PROMPTS, _N_TOKENS = 200, 16
_DEPTH = 18 / 32
_BATCH = 50
_TASK: Task = "language-modelling"

Prompts = Sequence[str] | None
"""Texts; None: tokens drawn at random."""


def reef(suspect: Checkpoint, reference: Checkpoint, prompts: Prompts = None) -> float:
    """Linear CKA of what a layer gives at the last token of each prompt (REEF, 2410.14273).

    The layer is at 18/32 of the depth, as in the paper's models, and 200 prompts are what it recommends. Above 0.8 is
    called a descendant. Unchanged by any order, rotation and scale of the sequence; unrelated models that learnt the
    same texts come near each other as well.
    """
    found = []
    for model, rows in zip((suspect, reference), _tokens(suspect, reference, prompts), strict=True):
        module = _module(model)
        block = min(round(_DEPTH * model.n_blocks), model.n_blocks - 1)
        with _watching({"": _blocks(module)[block]}) as seen:
            _run(module, rows)
        last = np.cumsum([len(row) for row in rows]) - 1
        found.append(seen.joined("", rows)[last])
    return linear_cka(*found)


def agreement(suspect: Checkpoint, reference: Checkpoint, prompts: Prompts = None) -> float:
    """Share of prompts after which both name the same next token (Nikolic et al., 2502.00706).

    The paper calls a suspect derived if a one-sided z-test of this share against that of every unrelated model rejects
    at 0.05 after Holm: a decision that needs controls, so the share alone is given. Unchanged by whatever leaves the
    output as it is; models that learnt the same texts agree often, related or not.
    """
    named = []
    for model, rows in zip((suspect, reference), _tokens(suspect, reference, prompts), strict=True):
        named.append(_run(_module(model), rows).argmax(-1))
    their_ids, our_ids = shared_ids(suspect, reference)
    ours = torch.full((n_tokens(reference),), -1)
    ours[our_ids] = their_ids
    return float((named[0] == ours[named[1]]).double().mean())


def phi_match(suspect: Checkpoint, reference: Checkpoint, prompts: Prompts = None) -> float:
    """-log10 p of whether gates and up-projections match units alike (phi_MATCH of Zhu et al., 2502.12292).

    In every layer the units are matched by the cosines of what their gates give at all tokens, and again by what their
    up-projections give; Spearman's correlation of the two matchings gives a one-sided p by Student's t, and Fisher's
    method combines the layers. The paper calls it "like a p-value" and rejects below 0.05; a p is not told apart from
    2.2e-308. Where depths differ, every layer of the shallower model has the one of the deeper with the smallest p,
    times their number: the paper compares all pairs of layers and leaves it at that. Unchanged by whatever leaves the
    output as it is. Models of which some units became alike by training are accused: the parametric p is no valid one.
    """
    found = []
    for model, rows in zip((suspect, reference), _tokens(suspect, reference, prompts), strict=True):
        module = _module(model)
        parts = {
            f"{block}.{name}": cast("nn.Module", getattr(layer.feedforward, name))
            for block, layer in enumerate(_blocks(module))
            for name in ("gate", "up")
            if getattr(layer.feedforward, name) is not None
        }
        if len(parts) < 2 * model.n_blocks:
            raise UndefinedError("a feed-forward part without a gate: the paper learns one that has it")
        with _watching(parts) as seen:
            _run(module, rows)
        units = {name: F.normalize(seen.joined(name, rows), dim=0) for name in parts}
        found.append([(units[f"{block}.gate"], units[f"{block}.up"]) for block in range(model.n_blocks)])
    if len(found[0][0][0]) != len(found[1][0][0]):
        raise UndefinedError("the two tokenizers cut the prompts into different numbers of tokens")
    shallow, deep = sorted(found, key=len)
    if len(shallow) == len(deep):
        return -float(np.log10(fisher([_pair_p(a, b) for a, b in zip(shallow, deep, strict=True)])))
    best = [min(1.0, len(deep) * min(_pair_p(a, b) for b in deep)) for a in shallow]
    return -float(np.log10(fisher(best)))


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """Centred kernel alignment of rows ``[n, any]`` with linear kernels (Kornblith et al., 2019)."""
    centred = [each.double() - each.double().mean(0) for each in (x, y)]
    a, b = (each @ each.T for each in centred)
    return float((a * b).sum() / (a.norm() * b.norm()))


def _pair_p(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> float:
    gate, up = (match(a.T @ b) for a, b in zip(one, other, strict=True))
    return spearman_p(gate, up)


def _tokens(suspect: Checkpoint, reference: Checkpoint, prompts: Prompts) -> tuple[list[list[int]], list[list[int]]]:
    """The prompts as either model reads them."""
    if prompts is not None:
        return _encoded(suspect, prompts), _encoded(reference, prompts)
    theirs, ours = shared_ids(suspect, reference)
    n = min(_N_TOKENS, _longest(suspect), _longest(reference))
    rows = torch.from_numpy(np.random.default_rng(0).integers(len(ours), size=(_N_PROMPTS, n)))
    return theirs[rows].tolist(), ours[rows].tolist()


def _encoded(model: Checkpoint, prompts: Sequence[str]) -> list[list[int]]:
    path = model.folder / "tokenizer.json"
    if not path.is_file():
        raise UndefinedError(f"{model.folder.name} has no tokenizer to read the prompts with")
    found = Tokenizer.from_file(str(path)).encode_batch(list(prompts), add_special_tokens=False)
    rows = [each.ids[: _longest(model)] for each in found]
    if not all(rows):
        raise UndefinedError("a prompt without a token")
    return rows


def _module(model: Checkpoint) -> Model:
    """The network, its parameters set by what the audit takes the tensors for.

    Raises:
        UsageError: It names no next token, or is of an architecture that danlu does not run.
        UndefinedError: A parameter was not found.
    """
    signature = Signature(task=_TASK, vocab_size=n_tokens(model))
    module = build_module(read_config(model.folder, _TASK), signature)
    module.load_state_dict({name: read(model, name).float() for name in module.state_dict()})
    return module.eval()


def _longest(model: Checkpoint) -> int:
    return text_config(read_config(model.folder, _TASK)).max_len


def _blocks(module: Model) -> Sequence[Any]:
    return cast("Sequence[Any]", module.blocks)


def _run(module: Model, rows: list[list[int]]) -> torch.Tensor:
    """Logits after every prompt: ``[n, V]``."""
    logits = []
    with torch.inference_mode():
        for part in _parts(rows):
            tokens_BT = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in part], batch_first=True)
            mask_BT, rows_B = _mask(part), torch.arange(len(part))
            asked_BT = torch.full_like(tokens_BT, NOT_PREDICTED)
            asked_BT[rows_B, mask_BT.sum(1) - 1] = 0  # any token: a place with a target is one that is scored
            positions_BT = torch.arange(mask_BT.shape[1]).expand_as(mask_BT)
            batch = Batch(
                rows_B=rows_B, tokens_BT=tokens_BT, mask_BT=mask_BT, positions_BT=positions_BT, targets_BT=asked_BT
            )
            logits.append(module(batch).logits)
    return torch.cat(logits)


def _parts(rows: list[list[int]]) -> Iterator[list[list[int]]]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def _mask(rows: list[list[int]]) -> torch.Tensor:
    lengths = torch.tensor([len(row) for row in rows])
    return torch.arange(int(lengths.max())) < lengths[:, None]


@dataclass
class _Seen:
    """What modules gave, batch by batch."""

    given: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def take(self, name: str, _module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        self.given.setdefault(name, []).append(output)

    def joined(self, name: str, rows: list[list[int]]) -> torch.Tensor:
        """At every token of every prompt, one after another: ``[n, width]``."""
        both = zip(self.given[name], _parts(rows), strict=True)
        return torch.cat([output[_mask(part)] for output, part in both])


@contextmanager
def _watching(modules: dict[str, nn.Module]) -> Iterator[_Seen]:
    """Keeps what modules give while they run."""
    seen = _Seen()
    handles = [module.register_forward_hook(partial(seen.take, name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
