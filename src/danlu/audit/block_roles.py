"""What the matrices of one Transformer block are for: by the names that architectures give them, else by shape."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from danlu.audit.packed import Matrix
from danlu.audit.parts import Part, Tail

__all__ = ["BlockRoles", "lies_transposed"]

Rows = Callable[[torch.Tensor], torch.Tensor]

_ATTENTION = {
    "q": re.compile(r"q_proj|query|q|wq|q_lin|to_q"),
    "k": re.compile(r"k_proj|key|k|wk|k_lin|to_k"),
    "v": re.compile(r"v_proj|value|v|wv|v_lin|to_v"),
    "out": re.compile(r"o_proj|out_proj|o|wo|out_lin|c_proj|dense|out|proj|to_out"),
    "qkv": re.compile(r"qkv_proj|c_attn|query_key_value|wqkv|w_pack|in_proj|qkv"),
    "kv_a": re.compile(r"kv_a_proj_with_mqa|kv_a_proj"),
    "kv_b": re.compile(r"kv_b_proj"),
}
_ALONE = re.compile(r"[qkvo]_proj|query|key|value|w[qkvo]|qkv_proj|query_key_value|c_attn|wqkv|w_pack|kv_[ab]_proj\w*")
"""Names that say enough wherever they stand."""
_GATE = re.compile(r"(.*\.)?(gate_proj|gate|w1|wi_0|linear_gate|w_gate)")
_UP = re.compile(
    r"(.*\.)?(up_proj|up|w3|w1|w2|v1|wi|wi_1|fc1|c_fc|fc_in|dense_h_to_4h|lin1|linear_in|w_up|ffn|w_in)"
    r"|(.*\.)?intermediate\.dense"
)
_BOTH = re.compile(r"(.*\.)?(gate_up_proj|gate_and_up_proj|dense_h_to_4h|w12|wi_fused|linear_fc1|gate_up)")
_DOWN = (
    re.compile(
        r"(.*\.)?(down_proj|down|fc2|c_proj|fc_out|dense_4h_to_h|lin2|linear_out|wo|w_down|ffn_output|linear_fc2)"
    ),
    re.compile(r"(.*\.)?output\.dense|w2|(.*\.)?w2|w_out"),
)
_IS_ATTENTION = re.compile(r"(.*[._])?\w*(attn|attention)(\..*)?")
_IS_CROSS = re.compile(r"(.*[._])?(encoder_?attn|enc_?dec_?attention|cross_?attn|cross_?attention)\w*(\..*)?")
_EXPERT = re.compile(r"(?:.*\.)?experts\.(\d+)\.(.*)")
_STACKED = re.compile(r"(?:.*\.)?experts\.([a-z_\d]+)")
_SHARED = re.compile(r"(?:.*\.)?(?:shared_experts?|shared_mlp)\.(.*)")
_BY_PART = {"gpt2", "phi3", "phi4mm", "gpt_bigcode", "baichuan", "mpt", "qwen", "chatglm", "dbrx"}
_BY_HEAD = {"gpt_neox", "bloom", "falcon", "RefinedWeb", "RefinedWebModel", "persimmon", "internlm2"}
"""Makes with one matrix for queries, keys and values: all queries first, or head by head."""
_BY_HEAD_NAMES = {"query_key_value", "wqkv"}
_INTERLEAVED = {"gpt_oss"}
"""Makes whose gates and other branch take turns, row by row."""


@dataclass(frozen=True)
class BlockRoles:
    """Finds the roles of a block's tensors.

    Attributes:
        width: Channels of the sequence, D.
        transposed: Whether square matrices have their inputs first.
        n_heads: Heads of queries; None: the config does not say.
        settings: ``config.json``.
    """

    width: int
    transposed: bool
    n_heads: int | None
    settings: Mapping[str, Any]

    def __call__(self, tails: Sequence[Tail]) -> tuple[dict[str, Part], int | None]:
        """Our name within the block -> a part; and the channels of a head's values.

        Args:
            tails: All tensors of the block.
        """
        matrices = [tail for tail in tails if len(tail.matrix.shape) > 1 and self.width in tail.matrix.shape]
        inner = [tail for tail in tails if len(tail.matrix.shape) == 2 and tail.last == "kv_b_proj"]
        named = self._named_attention([*matrices, *inner])
        taken = {tail.matrix.name for tail in named.values()}
        left = [tail for tail in matrices if tail.matrix.name not in taken and not _IS_CROSS.fullmatch(tail.path)]
        found: dict[str, Part] = {}
        for owner, members in self._owners(left).items():
            found |= {f"feedforward.{owner}{name}": part for name, part in self._feedforward(members, named).items()}
        taken |= {part.source.name for part in found.values()}
        sure = True
        if not ({"v", "qkv", "kv_b"} & named.keys() and "out" in named):
            rest = [tail for tail in left if tail.matrix.name not in taken]
            named, sure = self._shaped_attention(rest), False
        attention, d_value = self._attention(named, tails, sure)
        found |= {f"attention.{name}": part for name, part in attention.items()}
        paths = {tail.matrix.name: tail.path for tail in tails}
        biases = {tail.path: tail.matrix for tail in tails if tail.matrix.name.endswith("bias")}
        weights = {f"{name}.weight": part for name, part in found.items()}
        return weights | _biases(found, paths, biases), d_value

    def _named_attention(self, tails: Sequence[Tail]) -> dict[str, Tail]:
        found: dict[str, Tail] = {}
        for role, pattern in _ATTENTION.items():
            for tail in tails:
                belongs = _ALONE.fullmatch(tail.last) or _IS_ATTENTION.fullmatch(tail.path)
                if pattern.fullmatch(tail.last) and belongs and not _IS_CROSS.fullmatch(tail.path):
                    is_expert = "experts." in tail.path or re.fullmatch(r".*(mlp|ffn|feed_forward)\..*", tail.path)
                    if not is_expert:
                        found.setdefault(role, tail)
        return found

    def _shaped_attention(self, tails: Sequence[Tail]) -> dict[str, Tail]:
        """By order: queries, keys, values, out; or one matrix for the first three, then out."""
        flat = [tail for tail in tails if len(tail.matrix.shape) == 2]
        names = ("q", "k", "v", "out") if len(flat) == 4 else ("qkv", "out") if len(flat) == 2 else ()
        return dict(zip(names, flat, strict=True)) if names else {}

    def _attention(
        self, named: Mapping[str, Tail], tails: Sequence[Tail], sure: bool
    ) -> tuple[dict[str, Part], int | None]:
        if "out" not in named:
            return {}, None
        out = self._lying(named["out"].matrix, writes=True, sure=sure)
        inner = out.shape[1]
        d_value = inner // self.n_heads if self.n_heads and inner % self.n_heads == 0 else None
        found = {"out": out}
        found |= {
            role: self._lying(named[role].matrix, sure=sure and "out" in named)
            for role in ("q", "k", "v")
            if role in named
        }
        if "qkv" in named and "v" not in found:
            found |= self._split(named["qkv"], inner, d_value, sure)
        if {"kv_a", "kv_b"} <= named.keys() and "v" not in found and d_value is not None and self.n_heads:
            gain = next((tail.matrix for tail in tails if tail.last == "kv_a_layernorm"), None)
            found["v"] = Part(_through(named["kv_a"].matrix, named["kv_b"].matrix, gain, self.n_heads, d_value))
        return found, d_value

    def _split(self, tail: Tail, inner: int, d_value: int | None, sure: bool) -> dict[str, Part]:
        """Queries, keys and values of a matrix that holds all three."""
        whole = self._lying(tail.matrix)
        each, odd = divmod(whole.shape[0] - inner, 2)
        kind = str(self.settings.get("model_type"))
        by_head = kind in _BY_HEAD or (kind not in _BY_PART and tail.last in _BY_HEAD_NAMES)
        by_head = by_head or (kind == "gpt_bigcode" and not self.settings.get("multi_query", True))
        if each <= 0 or odd or (by_head and (d_value is None or each % d_value)):
            return {}
        n_groups = each // d_value if by_head and d_value else 1
        in_group, channels = inner // n_groups, each // n_groups
        sure = sure and kind in _BY_PART | _BY_HEAD
        starts = {"q": (0, in_group), "k": (in_group, in_group + channels), "v": (in_group + channels, None)}
        return {
            role: Part(tail.matrix, transposed=whole.transposed, sure=sure, rows=partial(_of_groups, n_groups, *span))
            for role, span in starts.items()
        }

    def _owners(self, tails: Sequence[Tail]) -> dict[str, list[tuple[Tail, Part]]]:
        """What may belong to a feed-forward part, by whose it is: an expert's, that of all tokens, or the only one."""
        found: defaultdict[str, list[tuple[Tail, Part]]] = defaultdict(list)
        for tail in tails:
            matrix = tail.matrix
            if match := _EXPERT.fullmatch(tail.path):
                found[f"experts.{match[1]}."].append((Tail(match[2], matrix), Part(matrix)))
            elif len(matrix.shape) == 3 and (match := _STACKED.fullmatch(tail.path)):
                for number in range(matrix.shape[0]):
                    found[f"experts.{number}."].append((Tail(match[1], matrix), Part(matrix, expert=number)))
            elif len(matrix.shape) == 2:
                match = _SHARED.fullmatch(tail.path)
                found["shared." if match else ""].append((Tail(match[1], matrix) if match else tail, Part(matrix)))
        return found

    def _feedforward(self, members: list[tuple[Tail, Part]], attention: Mapping[str, Tail]) -> dict[str, Part]:
        down, sure = self._down(members, by_shape=bool(attention) or len(members) > 2)
        if down is None:
            return {}
        n_units = next((size for size in down.shape if size != self.width), self.width)
        written = self._lying(down.source, writes=True, expert=down.expert, sure=sure)
        reads = [
            (tail, self._lying(part.source, expert=part.expert))
            for tail, part in members
            if part is not down and {*part.shape} in ({self.width, n_units}, {self.width, 2 * n_units})
        ]
        named = [pair for pair in reads if any(each.fullmatch(pair[0].path) for each in (_GATE, _UP, _BOTH))]
        sure = sure and bool(named)
        reads = (named or reads)[:2]
        parts = [_sure(part, sure) for _, part in reads]
        if not parts:
            return {}
        if parts[0].shape[0] == 2 * n_units:
            return {**self._halves(parts[0], n_units), "down": _sure(written, sure)}
        if len(parts) == 2 and not _GATE.fullmatch(reads[0][0].path) and _GATE.fullmatch(reads[1][0].path):
            parts.reverse()
        return {**dict(zip(("gate", "up")[-len(parts) :], parts, strict=True)), "down": _sure(written, sure)}

    def _down(self, members: list[tuple[Tail, Part]], by_shape: bool) -> tuple[Part | None, bool]:
        """The matrix that writes, and whether its name says so; by shape it is the one with the most units."""
        for pattern in _DOWN:
            for tail, part in members:
                if pattern.fullmatch(tail.path) and self._may_write(part):
                    return part, True
        shaped = [part for _, part in members if self._may_write(part) and len({*part.shape}) == 2]
        return (max(shaped, key=lambda part: max(part.shape)) if shaped and by_shape else None), False

    def _may_write(self, part: Part) -> bool:
        if part.expert is not None:  # stacked experts lie either way
            return True
        return part.shape[1 if self.transposed else 0] == self.width

    def _halves(self, whole: Part, n_units: int) -> dict[str, Part]:
        if self.settings.get("model_type") in _INTERLEAVED:
            picks: tuple[Rows, Rows] = (partial(_every_other, 0), partial(_every_other, 1))
        else:
            picks = (partial(_of_groups, 1, 0, n_units), partial(_of_groups, 1, n_units, None))
        return {
            name: Part(whole.source, whole.expert, whole.transposed, pick, sure=whole.sure)
            for name, pick in zip(("gate", "up"), picks, strict=True)
        }

    def _lying(self, matrix: Matrix, writes: bool = False, expert: int | None = None, sure: bool = True) -> Part:
        """A matrix that lies as ours do: ``[outputs, inputs]``."""
        rows, columns = matrix.shape[-2:]
        outputs, inputs = (rows, columns) if not writes else (columns, rows)
        # Of a matrix that reads the inputs are D wide, of one that writes the outputs are.
        turn = self.transposed if outputs == inputs else inputs != self.width
        return Part(matrix, expert=expert, transposed=turn, sure=sure)


def lies_transposed(tails: Sequence[Tail], width: int) -> bool:
    """Whether matrices have their inputs first, as most of those show whose names tell what they are for."""
    votes = 0
    for tail in tails:
        if len(tail.matrix.shape) != 2 or len({*tail.matrix.shape}) == 1:
            continue
        reads = _UP.fullmatch(tail.path) or _BOTH.fullmatch(tail.path) or _ATTENTION["qkv"].fullmatch(tail.last)
        if reads and not re.fullmatch(r".*\.w2", tail.path):
            votes += 1 if tail.matrix.shape[0] == width else -1
        elif _DOWN[0].fullmatch(tail.path):
            votes += 1 if tail.matrix.shape[1] == width else -1
    return votes > 0


def _of_groups(n_groups: int, start: int, end: int | None, tensor: torch.Tensor) -> torch.Tensor:
    """The rows of every group from one number to another."""
    rest = tensor.shape[1:]
    return tensor.reshape(n_groups, -1, *rest)[:, start:end].reshape(-1, *rest)


def _every_other(start: int, tensor: torch.Tensor) -> torch.Tensor:
    return tensor[start::2]


def _sure(part: Part, sure: bool) -> Part:
    return Part(part.source, part.expert, part.transposed, part.rows, part.plus_one, sure)


def _biases(found: Mapping[str, Part], paths: Mapping[str, str], biases: Mapping[str, Matrix]) -> dict[str, Part]:
    """The biases of what was found, split as it is."""
    mine = {}
    for name, part in found.items():
        bias = biases.get(paths.get(part.source.name, ""))
        if bias is not None and part.expert is None and len(bias.shape) == 1:
            mine[f"{name}.bias"] = Part(bias, rows=part.rows, sure=part.sure)
    return mine


def _through(kv_a: Matrix, kv_b: Matrix, gain: Matrix | None, n_heads: int, d_value: int) -> Matrix:
    """Values that are read from a narrow summary of the sequence, as if they were read from the sequence itself."""
    rank = kv_b.shape[1]

    def read() -> torch.Tensor:
        narrow = kv_a.read()[:rank].float()
        if gain is not None:
            narrow = narrow * gain.read().float()[:, None]
        per_head = kv_b.read().reshape(n_heads, -1, rank)[:, -d_value:].reshape(-1, rank)
        return per_head.float() @ narrow

    return Matrix(f"{kv_b.name} (values)", (n_heads * d_value, kv_a.shape[1]), read)
