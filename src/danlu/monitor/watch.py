"""Alarms on traffic that is watched for ever, at a false-alarm rate that holds for ever.

Windows of requests come one after another, and each signal (lengths, classes, confidence ...) gives every window an
*effect*: how far the window is from the reference (:mod:`drift`). To compare each effect with a threshold, or each
window's p-value with a level, is sure to raise an alarm sooner or later. Instead:

1. **Ranks.** Windows drawn from the reference itself have effects too (reference against reference). Under "nothing
   has changed" the live windows are more of the same, so the place of the newest effect among all that came before,
   ties broken at random, is uniform on (0, 1], and independent of the places before it, exactly, at any number of
   reference windows (conformal p-values; Vovk, Gammerman and Shafer 2005). A threshold, or p-values against reference
   windows alone, would not do: one unlucky reference then spoils all windows to come, alike.
2. **Bets.** A bet is a density on (0, 1] that is large for small p: its mean is 1 for uniform p, so the product of bets
   is a martingale, for every kind of bet and every window to begin with; so is any mean of such products. Half of the
   money is on "different from the first live window on" (the model was tested on something else), half on "different
   from some later window on", spread over all of them: ``1/log2(k+1) - 1/log2(k+2)`` of it waits for window k, at a
   price of about log(k) nats. Five strengths of bet share equally.

   If of a different window's effects a share v is larger, let a share v^a of the reference's be. For a late change,
   what came before is mostly reference: p = v^a, and the bet is the density of that. For a change at the start the k
   live windows among all R + k are themselves different: p = (R v^a + k v) / (R + k). It is this that lets a few dozen
   reference windows be enough.
3. **Ville's inequality.** The evidence of a signal that has not changed ever reaches 1/a with a chance of at most a. So
   1/(largest evidence so far) is a p-value at any time.
4. **Several signals.** They share requests and depend on each other in unknown ways, and none of the martingales need
   be one for somebody who also sees the others: averaging them (e-BH) would not be safe (Choe and Ramdas 2024, on
   evidence across filtrations). Holm's correction of the p-values of step 3 is: they only ever fall, so over all times
   and signals the chance of any alarm on a signal that has not changed is at most the level. The share of false alarms
   among alarms (FDR) is then at most the level too.
5. **Size.** An alarm is raised only where the effect also exceeds its usual value among reference windows by a minimum
   that the user cares for. This can only take alarms away.

The guarantee is the level for the whole life of a watch, not a month or a window. After an alarm that was dealt with, a
new watch with a new reference begins, and has a level of its own. What it rests on: windows of the reference and of
unchanged traffic are exchangeable. Records of a test set, dealt into windows at random, are so with independent
requests; latency and errors come in spells, and traffic of day and night differs, so the reference windows of these
must be live ones that contain whole cycles.

The number of reference windows decides how soon an alarm can come, not whether it is false; see ``bench/watching.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from danlu.core.errors import DataError, UsageError
from danlu.evaluate.metrics import Floats, Ints
from danlu.evaluate.significance import holm

__all__ = ["MIN_REFERENCE_WINDOWS", "RankEvidence", "SignalState", "Watch", "log_bet", "reference_windows"]

STRENGTHS = (1.25, 5 / 3, 2.5, 5.0, 10.0)
"""The exponents a of the bets."""
NEWTON_STEPS = 5
"""With them bets are right to 1e-9."""
MIN_REFERENCE_WINDOWS = 20
"""With fewer, drifted windows soon outnumber the reference, and even a large drift may never be told from chance."""


def log_bet(p_J: Floats, n_same: int, n_different: int) -> Floats:
    """The logarithms of the bets of every strength on some places, (A, J).

    With v uniform and p = (n_same v^a + n_different v) / (n_same + n_different), the density of p is dv/dp. v is found
    by Newton's steps from above, where p is convex in v: a step too few makes a bet smaller, which is on the safe side.
    """
    a_AJ = np.array(STRENGTHS)[:, None]
    n = n_same + n_different
    v_AJ = np.minimum((p_J * n / n_same) ** (1 / a_AJ), 1.0)
    if n_different:
        v_AJ = np.minimum(v_AJ, p_J * n / n_different)
        for _ in range(NEWTON_STEPS):
            same_AJ = n_same * v_AJ**a_AJ
            excess_AJ = same_AJ + n_different * v_AJ - p_J * n
            v_AJ = v_AJ - excess_AJ / (a_AJ * same_AJ / v_AJ + n_different)
    log_bet_AJ: Floats = np.log(n) - np.log(n_same * a_AJ * v_AJ ** (a_AJ - 1) + n_different)
    return log_bet_AJ


class RankEvidence:
    """Steps 1 to 3 for J signals side by side, each by itself.

    Args:
        reference_RJ: Effects of R reference windows.
        rng: Breaks ties; the same generator and effects give the same evidence again.

    Attributes:
        p_J: Where the newest window's effect stands among all before, uniform if nothing has changed.
        log_evidence_J: The logarithm of the martingale after the newest window.
        highest_J: The largest that it has ever been.
    """

    def __init__(self, reference_RJ: Floats, rng: np.random.Generator) -> None:
        self._n, n_signals = reference_RJ.shape
        self._n_reference = self._n
        self._effects = np.array(reference_RJ, np.float64)
        self._rng = rng
        self._n_live = 0
        self._log_always_AJ = np.full((len(STRENGTHS), n_signals), -np.log(len(STRENGTHS)))
        self._log_later_AJ = np.full((len(STRENGTHS), n_signals), -np.inf)
        self.p_J = np.ones(n_signals)
        self.log_evidence_J = np.zeros(n_signals)
        self.highest_J = np.zeros(n_signals)

    def observe(self, effect_J: Floats) -> None:
        """Take in the next window."""
        self.p_J = self._place(effect_J)
        self._n_live += 1
        self._log_always_AJ += log_bet(self.p_J, self._n_reference, self._n_live)
        begins = (self._cash(self._n_live) - self._cash(self._n_live + 1)) / len(STRENGTHS)
        self._log_later_AJ = np.logaddexp(self._log_later_AJ, np.log(begins)) + log_bet(self.p_J, 1, 0)
        log_later_J = np.logaddexp(logsumexp(self._log_later_AJ, axis=0), np.log(self._cash(self._n_live + 1)))
        self.log_evidence_J = np.logaddexp(logsumexp(self._log_always_AJ, axis=0), log_later_J) - np.log(2)
        self.highest_J = np.maximum(self.highest_J, self.log_evidence_J)

    def _place(self, effect_J: Floats) -> Floats:
        before_TJ = self._effects[: self._n]
        above_J = (before_TJ > effect_J).sum(0)
        equal_J = (before_TJ == effect_J).sum(0) + 1
        if self._n == len(self._effects):
            self._effects = np.concatenate([self._effects, np.empty_like(self._effects)])
        self._effects[self._n] = effect_J
        self._n += 1
        place_J: Floats = (above_J + equal_J * (1 - self._rng.random(len(effect_J)))) / self._n
        return place_J

    @staticmethod
    def _cash(window: int) -> float:
        """What is not yet betted when a live window, counted from 1, begins."""
        return float(1 / np.log2(window + 1))


@dataclass(frozen=True)
class SignalState:
    """How a signal stands after a window.

    Attributes:
        name: The signal.
        effect: Of this window.
        excess: By how much it exceeds the median of reference windows: what chance alone gives is taken off.
        p_window: Where it stands among all windows before; of this window alone.
        p_anytime: The p-value over all windows so far, valid whenever one looks.
        p_adjusted: The same after Holm's correction for the number of signals.
        alarm: Significant and large enough.
    """

    name: str
    effect: float
    excess: float
    p_window: float
    p_anytime: float
    p_adjusted: float
    alarm: bool


class Watch:
    """All steps: a few named signals, window after window.

    Args:
        reference: Signal -> effects of reference windows; as many for each signal, in the same order of windows.
        minimum: Signal -> by how much an effect must exceed what is usual, to be worth an alarm.
        level: The chance that this watch ever raises an alarm about a signal that has not changed.
        rng: Breaks ties.

    Raises:
        UsageError: The level or a minimum is none, or the names of signals differ.
        DataError: Fewer than 20 reference windows, or effects that are no numbers.
    """

    def __init__(
        self,
        reference: Mapping[str, Sequence[float]],
        minimum: Mapping[str, float],
        level: float,
        rng: np.random.Generator,
    ) -> None:
        if not 0 < level < 1:
            raise UsageError(f"the false-alarm rate must be between 0 and 1, not {level}")
        self.names = tuple(reference)
        self.level = level
        self._check_names(minimum)
        lengths = {name: len(effects) for name, effects in reference.items()}
        if not lengths or len(set(lengths.values())) > 1 or min(lengths.values()) < MIN_REFERENCE_WINDOWS:
            raise DataError(
                f"a watch needs {MIN_REFERENCE_WINDOWS} reference windows or more, as many for each signal; it has "
                f"{lengths or 'none'}",
                advice="take smaller windows, or more reference records",
            )
        reference_RJ = np.array([reference[name] for name in self.names], np.float64).T
        self._check_finite(reference_RJ)
        self._usual_J = np.median(reference_RJ, axis=0)
        self._minimum_J = np.array([minimum[name] for name in self.names], np.float64)
        if not np.isfinite(self._minimum_J).all():
            raise UsageError(f"the smallest effects worth an alarm must be numbers, not {dict(minimum)}")
        self._evidence = RankEvidence(reference_RJ, rng)

    def observe(self, effects: Mapping[str, float]) -> list[SignalState]:
        """Take in the next window.

        Args:
            effects: Signal -> effect of the window.

        Raises:
            UsageError: The names of signals differ.
            DataError: An effect is no number.
        """
        self._check_names(effects)
        effect_J = np.array([effects[name] for name in self.names], np.float64)
        self._check_finite(effect_J[None])
        self._evidence.observe(effect_J)
        excess_J = effect_J - self._usual_J
        anytime_J = np.exp(-self._evidence.highest_J)
        adjusted = holm([float(p) for p in anytime_J])
        return [
            SignalState(
                name=name,
                effect=float(effect_J[j]),
                excess=float(excess_J[j]),
                p_window=float(self._evidence.p_J[j]),
                p_anytime=float(anytime_J[j]),
                p_adjusted=adjusted[j],
                alarm=bool(adjusted[j] <= self.level and excess_J[j] >= self._minimum_J[j]),
            )
            for j, name in enumerate(self.names)
        ]

    def _check_names(self, given: Mapping[str, float]) -> None:
        if set(given) != set(self.names):
            raise UsageError(
                f"this watch has the signals {', '.join(sorted(self.names))}, not {', '.join(sorted(given))}",
                advice="a window gives every signal an effect; signals are chosen when the watch begins",
            )

    def _check_finite(self, effect_RJ: Floats) -> None:
        if not np.isfinite(effect_RJ).all():
            row, column = np.argwhere(~np.isfinite(effect_RJ))[0]
            raise DataError(
                f"the effect of {self.names[column]} is {effect_RJ[row, column]}",
                where=f"window {row}",
                advice="leave out windows without records; an effect is a finite number",
            )


def reference_windows(n_records: int, window: int, rng: np.random.Generator | None) -> tuple[Ints, list[Ints]]:
    """Deal reference records: a base that windows are compared with, and windows that show what is usual.

    A third is the base, the rest is cut into windows of the size of live ones. A record is in one of them only, so that
    the windows are to the base what a live window is.

    Args:
        n_records: How many there are.
        window: Records in a window.
        rng: Deals; None: the records lie in an order of chance already, and are dealt in it.

    Raises:
        DataError: There are not enough for 20 windows.
    """
    order: NDArray[np.int64] = np.arange(n_records) if rng is None else rng.permutation(n_records)
    n_windows = (n_records - n_records // 3) // window if window > 0 else 0
    if n_windows < MIN_REFERENCE_WINDOWS:
        raise DataError(
            f"{n_records} reference records make {n_windows} windows of {window}, fewer than {MIN_REFERENCE_WINDOWS}",
            advice="take smaller windows, or more reference records",
        )
    n_base = n_records - n_windows * window
    return order[:n_base], np.split(order[n_base:], n_windows)
