"""Decoding: what a generating model writes, for every family alike, many texts at a time or one as it comes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field, model_validator
from tokenizers import Tokenizer
from torch import nn

from danlu.core.batch import Batch
from danlu.core.config import Config
from danlu.core.errors import UsageError
from danlu.model.base import Generative
from danlu.model.decoding.beams import Beams, beam_search
from danlu.model.decoding.engine import quick
from danlu.model.decoding.pieces import Pieces, Spelling
from danlu.model.decoding.sampling import draw, filtered, most_likely, penalised, uniforms

__all__ = ["DecodeConfig", "Generated", "generate", "prompt_batch", "stream"]

Ended = Literal["end", "stop", "length"]


class DecodeConfig(Config):
    """How tokens are chosen, and when a text ends."""

    max_new_tokens: int = Field(200, gt=0)
    """The most tokens that are written; fewer where the model's ``max_len`` is reached."""
    temperature: float = Field(0.0, ge=0)
    """0 takes the most likely token each time, 1 draws as the model says; in between, likely tokens are favoured."""
    top_k: int | None = Field(None, gt=0)
    """Draw among the k most likely tokens only."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw among the most likely tokens that have this probability together."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Draw among tokens at least this share as likely as the most likely one."""
    repetition_penalty: float = Field(1.0, gt=0)
    """More than 1 makes tokens that are in the text already less likely."""
    stop: tuple[str, ...] = ()
    """The text ends before the first of these strings."""
    n_beams: int = Field(1, gt=0)
    """Beginnings that a beam search keeps; 1: no search."""
    length_penalty: float = 1.0
    """A found text's log-probability is divided by its length to this power: more favours longer texts."""
    seed: int = Field(0, ge=0)
    """What draws depend on, beside the prompt."""

    @model_validator(mode="after")
    def _fits(self) -> DecodeConfig:
        narrows = {"top_k": self.top_k is not None, "top_p": self.top_p < 1, "min_p": self.min_p > 0}
        if self.temperature == 0 and any(narrows.values()):
            given = next(name for name, is_given in narrows.items() if is_given)
            raise ValueError(f"{given} says what to draw from, and at temperature 0 nothing is drawn")
        if 0 < self.temperature < 0.001:
            raise ValueError("a temperature below 0.001 is 0: give 0 for the most likely token each time")
        if self.n_beams > 1 and self.temperature > 0:
            raise ValueError("a beam search draws nothing: with n_beams, leave temperature at 0")
        if self.n_beams > 1 and self.stop:
            raise ValueError("a beam search does not look for stop strings: leave n_beams at 1, or stop empty")
        if self.n_beams == 1 and self.length_penalty != 1:
            raise ValueError("length_penalty compares the texts of a beam search: give n_beams too")
        if "" in self.stop:
            raise ValueError("an empty stop string stops everything")
        return self


@dataclass(frozen=True)
class Generated:
    """What a model wrote after one prompt.

    Attributes:
        text: It, without the prompt, the token that ends it and the stop string.
        tokens: Its token ids, the one that ends it included.
        logprobs: The natural logarithm of the probability that the model gave each token, whatever was done to its
            logits afterwards.
        ended: Why: by itself (``end``), at a stop string (``stop``), or for want of room (``length``).
    """

    text: str
    tokens: list[int]
    logprobs: list[float]
    ended: Ended


def prompt_batch(prompts: Sequence[Sequence[int]], begin: int) -> Batch:
    """Prompts side by side, padded on the right.

    Args:
        prompts: Token ids of each; an empty prompt becomes ``begin``.
        begin: The token before the first of a text.
    """
    rows = [torch.tensor(prompt or [begin], dtype=torch.int64) for prompt in map(list, prompts)]
    tokens_BT = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    steps_T = torch.arange(tokens_BT.shape[1])
    lengths_B = torch.tensor([len(row) for row in rows])
    return Batch(
        rows_B=torch.arange(len(rows)),
        tokens_BT=tokens_BT,
        mask_BT=steps_T < lengths_B[:, None],
        positions_BT=steps_T.expand_as(tokens_BT),
    )


def generate(
    model: Generative, tokenizer: Tokenizer, prompts: Batch, config: DecodeConfig, ends: Sequence[int]
) -> list[Generated]:
    """Continue, or translate, a batch of texts. A text that has ended leaves the batch.

    Args:
        model: A generating model in evaluation mode, or what :func:`danlu.model.decoding.engine.quick` made of it.
        tokenizer: Its tokenizer.
        prompts: Prompts of at least one token, padded on the right; a translator's have sources too.
        config: How to choose.
        ends: The tokens that end a text.

    Returns:
        One for each prompt, in order. Without beams and draws the same as each prompt gives alone, and with draws too:
        they depend on seed and prompt only (repeated prompts in a batch get draws of their own).

    Raises:
        UsageError: A prompt or a source is longer than the model can see.
    """
    task = _Task.of(model, tokenizer, prompts, config, ends)
    if config.n_beams > 1:
        return _search(task)
    writing = _Writing(task)
    while writing.step():
        pass
    return [text.result() for text in writing.texts]


def stream(
    model: Generative, tokenizer: Tokenizer, prompt: Batch, config: DecodeConfig, ends: Sequence[int]
) -> Generator[str, None, Generated]:
    """Continue, or translate, one text and show it as it is written.

    No piece cuts a character, and what may be the beginning of a stop string is held back until it is clear.

    Args:
        model: As in :func:`generate`.
        tokenizer: Its tokenizer.
        prompt: A batch of one.
        config: How to choose.
        ends: The tokens that end a text.

    Yields:
        Pieces that make up the text, none of them empty.

    Returns:
        What :func:`generate` returns for it.

    Raises:
        UsageError: The prompt or source is longer than the model can see, or a beam search was asked for.
    """
    if config.n_beams > 1:
        advice = "leave n_beams at 1, or wait for the whole text"
        raise UsageError("a beam search has no text to show before its end", where="n_beams", advice=advice)
    writing = _Writing(_Task.of(model, tokenizer, prompt, config, ends), shown=True)
    (text,) = writing.texts
    n_shown = 0
    more = True
    while more:
        more = writing.step()
        if piece := "".join(text.pieces[n_shown:]):
            yield piece
        n_shown = len(text.pieces)
    return text.result()


@dataclass(frozen=True)
class _Task:
    """What is to be written.

    Attributes:
        model, prompts, config, ends: As in :func:`generate`.
        spelling: What tokens spell.
        read: The token ids of each prompt.
        rooms: The most tokens that may follow each.
    """

    model: Generative
    prompts: Batch
    config: DecodeConfig
    ends: frozenset[int]
    spelling: Spelling
    read: list[list[int]]
    rooms: list[int]

    @classmethod
    def of(
        cls, model: Generative, tokenizer: Tokenizer, prompts: Batch, config: DecodeConfig, ends: Sequence[int]
    ) -> _Task:
        if isinstance(model, nn.Module):
            assert not model.training, "a model in training drops at random: call eval() first"
            prompts = prompts.to(next(model.parameters()).device)
        tokens_BT, mask_BT, _ = prompts.text
        read = [tokens_T[mask_T].tolist() for tokens_T, mask_T in zip(tokens_BT, mask_BT, strict=True)]
        _check_lengths(prompts, model.config.max_len)
        rooms = [min(config.max_new_tokens, model.config.max_len - len(prompt)) for prompt in read]
        return cls(quick(model), prompts, config, frozenset(ends), Spelling(tokenizer), read, rooms)

    @property
    def max_len(self) -> int:
        """Tokens of the longest text that may come of it."""
        return max(len(prompt) + room for prompt, room in zip(self.read, self.rooms, strict=True))

    def continues(self, row: int) -> bool:
        """Whether a prompt has text, and not only a token that begins one."""
        return bool(self.spelling.of(self.read[row], continues=False))

    def uniforms(self) -> torch.Tensor:
        """See :func:`danlu.model.decoding.sampling.uniforms`; a source to translate is part of the prompt."""
        known = self.read
        if self.prompts.source_BS is not None:
            sources = zip(*self.prompts.source, strict=True)
            known = [
                [*prompt, *source_S[mask_S].tolist()] for prompt, (source_S, mask_S) in zip(known, sources, strict=True)
            ]
        return uniforms(self.config.seed, known, max(self.rooms)).to(self.prompts.text[0].device)


def _check_lengths(prompts: Batch, max_len: int) -> None:
    """A prompt needs room for one more token; a source may be as long as the model can see."""
    limits = [("prompt", prompts.text[1], max_len - 1)]
    if prompts.source_BS is not None:
        limits.append(("source", prompts.source[1], max_len))
    for name, mask_BT, limit in limits:
        lengths = mask_BT.sum(1).tolist()
        assert min(lengths) > 0, f"a {name} has at least one token"
        row = max(range(len(lengths)), key=lengths.__getitem__)
        if lengths[row] > limit:
            what = (
                f"a {name} of {lengths[row]} tokens is too long: the model sees {max_len}, the text it writes included"
            )
            advice = f"shorten it to {limit} tokens, or train a model with a larger max_len"
            raise UsageError(what, where=f"{name} {row + 1} of {len(lengths)}", advice=advice)


def _search(task: _Task) -> list[Generated]:
    config = task.config
    beams = Beams(config.n_beams, config.length_penalty, config.repetition_penalty, tuple(sorted(task.ends)))
    texts = []
    for row, found in enumerate(beam_search(task.model, task.prompts, beams, task.rooms, task.max_len)):
        best = found[0]
        ended: Ended = "end" if best.tokens[-1] in task.ends else "length"
        spelt = best.tokens[:-1] if ended == "end" else best.tokens
        text = task.spelling.whole(spelt, task.continues(row))
        texts.append(Generated(text, best.tokens, best.logprobs, ended))
    return texts


class _Text:
    """One text while it is written."""

    def __init__(self, task: _Task, row: int, shown: bool) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.ended: Ended | None = None
        self.pieces: list[str] = []
        self._ends, self._room = task.ends, task.rooms[row]
        self._spelling, self._continues = task.spelling, task.continues(row)
        # Text is spelt at once where someone looks at it; otherwise in one go when it is done.
        looked_at = shown or task.config.stop
        self._cutter = Pieces(self._spelling, task.config.stop, self._continues) if looked_at else None

    def add(self, token: int, logprob: float) -> None:
        """Take one more token; sets ``ended`` if it is the last."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        if token in self._ends:
            self.ended = "end"
        elif len(self.tokens) == self._room:
            self.ended = "length"
        if self._cutter is None:
            return
        if self.ended != "end":
            self.pieces.append(self._cutter.push(token))
        if self.ended:
            self.pieces.append(self._cutter.finish())
        if self._cutter.stopped:
            self.ended = "stop"

    def result(self) -> Generated:
        """The finished text."""
        assert self.ended is not None
        if self._cutter is not None:
            return Generated("".join(self.pieces), self.tokens, self.logprobs, self.ended)
        spelt = self.tokens[:-1] if self.ended == "end" else self.tokens
        return Generated(self._spelling.whole(spelt, self._continues), self.tokens, self.logprobs, self.ended)


class _Writing:
    """Texts that are written side by side, a token each at a time.

    Args:
        task: What is to be written.
        shown: Whether someone looks at the texts while they are written.
    """

    @torch.inference_mode()
    def __init__(self, task: _Task, shown: bool = False) -> None:
        self.texts = [_Text(task, row, shown) for row in range(len(task.read))]
        self._live = list(range(len(task.read)))  # the text in each row of the model's batch
        self._task = task
        self._uniforms_BT = task.uniforms() if task.config.temperature else None
        self._n = 0
        self._logits_BV, self._state = task.model.begin(task.prompts, task.max_len)
        self._seen_BV: torch.Tensor | None = None
        if task.config.repetition_penalty != 1:
            self._seen_BV = torch.zeros_like(self._logits_BV, dtype=torch.bool)
            for row, prompt in enumerate(task.read):
                self._seen_BV[row, prompt] = True

    @torch.inference_mode()
    def step(self) -> bool:
        """Write a token of every text that has not ended; whether any is left."""
        tokens_B = self._choose()
        logprobs_B1 = self._logits_BV.float().log_softmax(1).gather(1, tokens_B[:, None])
        for row, token, (logprob,) in zip(self._live, tokens_B.tolist(), logprobs_B1.tolist(), strict=True):
            self.texts[row].add(token, logprob)
        # The last rows take the places of those that leave: the others need not be moved.
        kept = list(range(len(self._live)))
        for place in reversed(kept.copy()):
            if self.texts[self._live[place]].ended is not None:
                kept[place] = kept[-1]
                kept.pop()
        if not kept:
            return False
        if len(kept) < len(self._live):
            rows_B = torch.tensor(kept, device=tokens_B.device)
            self._live = [self._live[place] for place in kept]
            tokens_B, self._state = tokens_B[rows_B], self._state.select(rows_B)
            self._uniforms_BT = None if self._uniforms_BT is None else self._uniforms_BT[rows_B]
            self._seen_BV = None if self._seen_BV is None else self._seen_BV[rows_B]
        if self._seen_BV is not None:
            self._seen_BV.scatter_(1, tokens_B[:, None], True)
        self._logits_BV = self._task.model.advance(tokens_B, self._state)
        return True

    def _choose(self) -> torch.Tensor:
        config, logits_BV = self._task.config, self._logits_BV.float()
        if self._seen_BV is not None:
            logits_BV = penalised(logits_BV, self._seen_BV, config.repetition_penalty)
        if self._uniforms_BT is None:
            return most_likely(logits_BV)
        logits_BV = filtered(logits_BV, config.temperature, config.top_k, config.top_p, config.min_p)
        self._n += 1
        return draw(logits_BV, self._uniforms_BT[:, self._n - 1])
