"""Texts that are being written, each as its own request asks: choosing tokens, spelling them, telling probabilities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from danlu.model.decode import DecodeConfig
from danlu.model.decoding.pieces import Pieces, Spelling
from danlu.model.decoding.sampling import draw, filtered, most_likely, penalised

__all__ = ["Chosen", "Order", "Prompt", "Speller", "Text", "choose", "told"]

_BROKEN = "\ufffd"

Top = list[tuple[int, float]]
"""The most likely tokens of a place with the logarithms of their probabilities."""


@dataclass(frozen=True)
class Chosen:
    """A token that was chosen, or read.

    Attributes:
        token: Its id.
        logprob: The natural logarithm of the probability that the model gave it; None: not asked for, or the first.
        top: The most likely ones.
    """

    token: int
    logprob: float | None = None
    top: Top = field(default_factory=list)


@dataclass(frozen=True)
class Prompt:
    """A prompt as the model reads it.

    Attributes:
        tokens: Its token ids.
        echoed: What is told of it, token by token, where it is to be echoed.
    """

    tokens: list[int]
    echoed: list[Chosen] | None = None


@dataclass
class Order:
    """A request for texts.

    Attributes:
        id: Its number.
        config: How tokens are chosen.
        n_top: How many likely tokens are told at each place; None: nothing is told.
        streamed: Whether someone looks at the texts while they are written.
        n_prompt_tokens: Tokens of all prompts.
        texts: All of its texts.
    """

    id: int
    config: DecodeConfig
    n_top: int | None
    streamed: bool
    n_prompt_tokens: int = 0
    texts: list[Text] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """Whether every text has ended."""
        return all(text.ended for text in self.texts)

    @property
    def n_written(self) -> int:
        """Tokens written so far."""
        return sum(len(text.tokens) for text in self.texts)


class Speller:
    """What tokens spell, for a whole text and each by itself.

    Args:
        spelling: Of the model's tokenizer.
    """

    def __init__(self, spelling: Spelling) -> None:
        self.spelling = spelling

    def alone(self, token: int) -> tuple[str, list[int] | None]:
        """A token as it is told, and its bytes in UTF-8: its name where it spells a part of a character only."""
        text = self.spelling.of([token], continues=True)
        name = self.spelling.tokenizer.id_to_token(token) or ""
        if not text or _BROKEN not in text:
            return (text, list(text.encode())) if text else (name, [])
        byte = name.removeprefix("<0x").removesuffix(">")
        return name, [int(byte, 16)] if len(name) == 6 and name == f"<0x{byte}>" else None


class Text:
    """One text while it is written; its prompt comes first where that is to be echoed.

    Args:
        order: What it belongs to.
        prompt: What it continues.
        room: The most tokens that may follow; 0: the prompt is all there is.
        uniforms: Numbers by which its tokens are drawn, at least ``room``; None: nothing is drawn.
        speller: What tokens spell.

    Attributes:
        order, prompt, uniforms: See above.
        index: Its place in the order.
        tokens: Token ids written so far.
        ended: Why it ended: by itself or at a stop string (``stop``), or for want of room (``length``).
        seen: The tokens that are in it already, where they are to become less likely; bool ``[V]``.
    """

    def __init__(
        self, order: Order, prompt: Prompt, room: int, uniforms: torch.Tensor | None, speller: Speller
    ) -> None:
        self.order, self.prompt, self.uniforms = order, prompt, uniforms
        self.index = len(order.texts)
        self.tokens: list[int] = []
        self.ended: Literal["stop", "length"] | None = None if room else "length"
        self.seen: torch.Tensor | None = None
        self._room, self._speller = room, speller
        self._continues = bool(speller.spelling.of(prompt.tokens, continues=False))
        looked_at = order.streamed or order.config.stop or order.n_top is not None
        self._cutter = Pieces(speller.spelling, order.config.stop, self._continues) if looked_at else None
        self._certain = ""
        self._n_spelt = 0  # characters so far, those that a stop string may yet take back included
        self._told: list[dict[str, Any]] = []
        self._n_shown = self._n_told = 0
        self._taken = False
        self._whole = Pieces(speller.spelling, (), self._continues)
        if prompt.echoed is not None:
            self._echo(prompt.echoed)

    def add(self, chosen: Chosen, ends: frozenset[int]) -> None:
        """Take one more token; sets ``ended`` if it is the last."""
        self.tokens.append(chosen.token)
        if self.seen is not None:
            self.seen[chosen.token] = True
        is_end = chosen.token in ends
        if is_end or len(self.tokens) == self._room:
            self.ended = "stop" if is_end else "length"
        if self._cutter is None:
            if self.ended:
                self._certain += self._speller.spelling.whole(self.tokens[: -1 if is_end else None], self._continues)
            return
        if not is_end:
            self._tell(chosen, self._n_spelt)
            self._certain += self._cutter.push(chosen.token)
            self._n_spelt += len(self._whole.push(chosen.token)) if self.order.n_top is not None else 0
        if self.ended:
            self._certain += self._cutter.finish()
        if self._cutter.stopped:
            self.ended = "stop"

    def take(self) -> dict[str, Any] | None:
        """What is new and certain since it was last asked for, or None: text, tokens that begin in it, why it ended.

        After the part that says why it ended nothing comes any more.
        """
        text = self._certain[self._n_shown :]
        if self._taken or not (text or self.ended):
            return None
        n_told = self._n_told
        while n_told < len(self._told) and self._told[n_told]["offset"] < len(self._certain):
            n_told += 1
        part = {"index": self.index, "text": text, "ended": self.ended}
        if self.order.n_top is not None:
            part["tokens"] = self._told[self._n_told : n_told]
        self._n_shown, self._n_told, self._taken = len(self._certain), n_told, self.ended is not None
        return part

    def _echo(self, echoed: list[Chosen]) -> None:
        spelt = Pieces(self._speller.spelling, (), continues=False)
        for chosen in echoed:
            self._tell(chosen, len(self._certain))
            self._certain += spelt.push(chosen.token)
        self._certain += spelt.finish()
        self._n_spelt = len(self._certain)

    def _tell(self, chosen: Chosen, offset: int) -> None:
        if self.order.n_top is None:
            return
        token, octets = self._speller.alone(chosen.token)
        top = [[*self._speller.alone(other), logprob] for other, logprob in chosen.top]
        self._told.append({"token": token, "bytes": octets, "logprob": chosen.logprob, "offset": offset, "top": top})


@torch.inference_mode()
def choose(texts: Sequence[Text], logits_BV: torch.Tensor) -> list[Chosen]:
    """The next token of every text, each chosen as its own request asks.

    The arithmetic of a row does not depend on the other rows, and draws depend on seed, prompt and copy alone.
    """
    logits_BV = logits_BV.float()
    steered_BV = logits_BV
    if punished := [row for row, text in enumerate(texts) if text.seen is not None]:
        steered_BV = logits_BV.clone()
        for row in punished:
            seen, penalty = texts[row].seen, texts[row].order.config.repetition_penalty
            assert seen is not None
            steered_BV[row] = penalised(logits_BV[row : row + 1], seen[None], penalty)[0]
    tokens_B = most_likely(steered_BV)
    alike: defaultdict[tuple[float, int | None, float, float], list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        if text.uniforms is not None:
            config = text.order.config
            alike[config.temperature, config.top_k, config.top_p, config.min_p].append(row)
    for how, rows in alike.items():
        heights = [text.uniforms[len(text.tokens)] for row in rows if (text := texts[row]).uniforms is not None]
        tokens_B[rows] = draw(filtered(steered_BV[rows], *how), torch.stack(heights))
    chosen = [Chosen(token) for token in tokens_B.tolist()]
    if asked := [row for row, text in enumerate(texts) if text.order.n_top is not None]:
        n_top = max(texts[row].order.n_top or 0 for row in asked)
        for row, found in zip(asked, told(logits_BV[asked], [chosen[row].token for row in asked], n_top), strict=True):
            chosen[row] = Chosen(found.token, found.logprob, found.top[: texts[row].order.n_top])
    return chosen


@torch.inference_mode()
def told(logits_BV: torch.Tensor, tokens: Sequence[int], n_top: int) -> list[Chosen]:
    """Tokens with the logarithms of their probabilities, and the most likely ones of each place."""
    logprobs_BV = logits_BV.float().log_softmax(1)
    own = logprobs_BV.gather(1, torch.tensor(tokens, dtype=torch.int64)[:, None])[:, 0].tolist()
    best = logprobs_BV.topk(min(n_top, logprobs_BV.shape[1]))
    tops = [
        list(zip(ids, values, strict=True))
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return [Chosen(token, logprob, top) for token, logprob, top in zip(tokens, own, tops, strict=True)]
