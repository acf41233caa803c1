"""Beam search: keep the n most likely beginnings, lengthen all of them, keep the n most likely again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from danlu.core.batch import Batch
from danlu.model.base import Generative
from danlu.model.decoding.sampling import penalised

__all__ = ["Beams", "Hypothesis", "beam_search"]


@dataclass(frozen=True)
class Beams:
    """How to search.

    Attributes:
        n_beams: Beginnings that are kept of each text.
        length_penalty: A text's score is the sum of its log-probabilities divided by its number of tokens to this
            power: 0 favours short texts, 1 takes the mean, more favours long ones (Wu et al., 2016).
        repetition_penalty: See :func:`danlu.model.decoding.sampling.penalised`; log-probabilities are penalised here.
        ends: Tokens that end a text.
    """

    n_beams: int
    length_penalty: float
    repetition_penalty: float
    ends: tuple[int, ...]


@dataclass(frozen=True, order=True)
class Hypothesis:
    """A finished text.

    Attributes:
        score: See :class:`Beams`; penalties included.
        tokens: Its tokens, the one that ends it included.
        logprobs: The log-probability that the model gave each of them.
    """

    score: float
    tokens: list[int] = field(compare=False)
    logprobs: list[float] = field(compare=False)


@torch.inference_mode()
def beam_search(
    model: Generative, prompts: Batch, beams: Beams, rooms: list[int], max_len: int
) -> list[list[Hypothesis]]:
    """Search a continuation of every prompt.

    A prompt is done when it has ``n_beams`` finished texts and the best beginning, scored at its present length, is no
    better than the worst of them (the rule that transformers calls ``early_stopping=False``), or when its room is used
    up; it then leaves the batch.

    Args:
        model: What is asked.
        prompts: The prompts.
        beams: How to search.
        rooms: The most tokens of each continuation; at least 1.
        max_len: The most tokens of a text, its prompt included.

    Returns:
        For each prompt up to ``n_beams`` texts, the best first.
    """
    logits_RV, state = model.begin(prompts, max_len)
    search = _Search(prompts, beams, rooms, logits_RV)
    state = state.select(search.first_rows)
    logits_RV = logits_RV[search.first_rows]
    while True:
        rows_R, tokens_R = search.step(logits_RV)
        if not len(rows_R):
            return [sorted(found, reverse=True) for found in search.found]
        state = state.select(rows_R)
        logits_RV = model.advance(tokens_R, state)


class _Search:
    """The beginnings of all prompts that are not done; rows R of the model are P prompts by N beams.

    Attributes:
        found: The finished texts of each prompt.
        first_rows: int64 ``[R]``; the prompt of each row.
    """

    def __init__(self, prompts: Batch, beams: Beams, rooms: list[int], logits_PV: torch.Tensor) -> None:
        tokens_PT, mask_PT, _ = prompts.text
        n_prompts, device = len(tokens_PT), logits_PV.device
        self.beams = beams
        self.found: list[list[Hypothesis]] = [[] for _ in range(n_prompts)]
        self.first_rows = torch.arange(n_prompts, device=device).repeat_interleave(beams.n_beams)
        self._rooms = rooms
        self._ends = torch.tensor(beams.ends, dtype=torch.int64, device=device)
        self._live = list(range(n_prompts))
        # All beams of a prompt begin alike: only the first may be lengthened, or all would stay alike.
        self._scores_PN = torch.full((n_prompts, beams.n_beams), -torch.inf, device=device)
        self._scores_PN[:, 0] = 0
        shape = (n_prompts, beams.n_beams, max(rooms))
        self._tokens_PNT = torch.zeros(shape, dtype=torch.int64, device=device)
        self._logprobs_PNT = torch.zeros(shape, device=device)
        self._n = 0
        self._seen_RV: torch.Tensor | None = None
        if beams.repetition_penalty != 1:
            seen_PV = torch.zeros_like(logits_PV, dtype=torch.bool)
            rows_P1 = torch.arange(n_prompts, device=device)[:, None].expand_as(tokens_PT)
            seen_PV[rows_P1[mask_PT], tokens_PT[mask_PT]] = True
            self._seen_RV = seen_PV[self.first_rows]

    def step(self, logits_RV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lengthen every beginning.

        Returns:
            The rows that go on, int64 ``[R]``, and the token that each of them is lengthened by; none when all is done.
        """
        n_beams, vocab_size = self.beams.n_beams, logits_RV.shape[1]
        logprobs_RV = logits_RV.float().log_softmax(1)
        steps_RV = logprobs_RV
        if self._seen_RV is not None:
            steps_RV = penalised(logprobs_RV, self._seen_RV, self.beams.repetition_penalty)
        sums_PM = (self._scores_PN[:, :, None] + steps_RV.view(*self._scores_PN.shape, -1)).flatten(1)
        # So many that n_beams are left if all that end a text are among them.
        n_kept = min(max(2, 1 + len(self.beams.ends)) * n_beams, sums_PM.shape[1])
        sums_PM, places_PM = sums_PM.topk(n_kept)
        parents_PM, next_PM = places_PM // vocab_size, places_PM % vocab_size
        rows_PM = parents_PM + n_beams * torch.arange(len(sums_PM), device=sums_PM.device)[:, None]
        tokens_PMT = self._tokens_PNT.flatten(0, 1)[rows_PM]
        tokens_PMT[:, :, self._n] = next_PM
        logprobs_PMT = self._logprobs_PNT.flatten(0, 1)[rows_PM]
        logprobs_PMT[:, :, self._n] = logprobs_RV[rows_PM, next_PM]
        self._n += 1
        full_P = torch.tensor([self._rooms[prompt] == self._n for prompt in self._live], device=sums_PM.device)
        ended_PM = torch.isin(next_PM, self._ends) | full_P[:, None]
        self._keep_finished(sums_PM, ended_PM, tokens_PMT, logprobs_PMT)
        self._scores_PN, best_PN = sums_PM.masked_fill(ended_PM, -torch.inf).topk(n_beams)
        going_on = self._going_on(full_P.tolist())
        kept_P = torch.tensor(going_on, dtype=torch.int64, device=sums_PM.device)
        rows_RN, next_PN = rows_PM.gather(1, best_PN)[kept_P], next_PM.gather(1, best_PN)[kept_P]
        best_PNT = best_PN[kept_P, :, None].expand(-1, -1, tokens_PMT.shape[2])
        self._tokens_PNT = tokens_PMT[kept_P].gather(1, best_PNT)
        self._logprobs_PNT = logprobs_PMT[kept_P].gather(1, best_PNT)
        self._scores_PN = self._scores_PN[kept_P]
        self._live = [self._live[i] for i in going_on]
        rows_R, next_R = rows_RN.flatten(), next_PN.flatten()
        if self._seen_RV is not None:
            self._seen_RV = self._seen_RV[rows_R].scatter_(1, next_R[:, None], True)
        return rows_R, next_R

    def _keep_finished(
        self, sums_PM: torch.Tensor, ended_PM: torch.Tensor, tokens_PMT: torch.Tensor, logprobs_PMT: torch.Tensor
    ) -> None:
        """Take up texts that have ended; only those among the n_beams best, for others would have been left behind."""
        n_beams = self.beams.n_beams
        ended_PM = ended_PM[:, :n_beams] & sums_PM[:, :n_beams].isfinite()
        for i, place in ended_PM.nonzero().tolist():
            score = float(sums_PM[i, place]) / self._n**self.beams.length_penalty
            found = self.found[self._live[i]]
            found.append(
                Hypothesis(score, tokens_PMT[i, place, : self._n].tolist(), logprobs_PMT[i, place, : self._n].tolist())
            )
            found.sort(reverse=True)
            del found[n_beams:]

    def _going_on(self, full: list[bool]) -> list[int]:
        """Which of the prompts that are not done may still find something better."""
        best_possible = (self._scores_PN[:, 0] / self._n**self.beams.length_penalty).tolist()

        def done(i: int) -> bool:
            found = self.found[self._live[i]]
            nothing_left = best_possible[i] == -math.inf
            return nothing_left or (len(found) == self.beams.n_beams and best_possible[i] <= found[-1].score)

        return [i for i in range(len(self._live)) if not full[i] and not done(i)]
