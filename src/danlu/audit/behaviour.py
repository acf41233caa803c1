"""The tests by behaviour: what a suspect answers, beside the reference, its siblings and unrelated models.

They need no weights of the suspect. Three of them:

- The order of data (:mod:`danlu.audit.data_order`): exact; it needs the suspect's losses on the reference's training
  texts.
- Siblings (:mod:`danlu.audit.siblings`): whose own mistakes does the suspect share, the reference's or a sibling's?
  Exact, but p is at least one in the number of the family; beyond all siblings by far it is a strong indication.
- Agreement (:mod:`danlu.audit.agreement`), for a reference without siblings: no proof, but it may be a strong
  indication.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from danlu.audit.agreement import FEWEST, Agreement, agreement_test, calibrate
from danlu.audit.data_order import DataOrderTest, Moved, data_order_test, excess_losses
from danlu.audit.siblings import SiblingTest, own_answers, own_mistakes, rank_test
from danlu.audit.speaker import Speaker
from danlu.audit.verdict import Calibrated
from danlu.core.progress import Progress

__all__ = [
    "AGREEMENT",
    "DATA_ORDER",
    "SIBLINGS",
    "Behaviour",
    "Cast",
    "Questions",
    "Seen",
    "cut",
    "observe",
    "taught",
]

DATA_ORDER, SIBLINGS, AGREEMENT = "data order", "siblings by behaviour", "agreement"
"""What the tests are called in the family of all tests."""

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who is asked, all for the same task.

    Attributes:
        suspect: The model in question,
        reference: and the one that it may be derived from.
        siblings: Models of the reference's recipe and data, of other seeds.
        controls: Models known to have nothing to do with the reference.
        left_out: Those of both that cannot be asked, and why.
    """

    suspect: Speaker
    reference: Speaker
    siblings: tuple[Speaker, ...] = ()
    controls: tuple[Speaker, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the reference's run saw.

    Attributes:
        epochs: The numbers of the records in each batch of each epoch, in the planned order.
        rates: The planned learning rate of every step of these epochs.
        moved: What the seed put into a random order.
        texts: Every training text.
        labels: Their labels, where classes are named.
    """

    epochs: Sequence[Sequence[npt.NDArray[np.integer]]]
    rates: Sequence[float]
    moved: Moved
    texts: Sequence[str]
    labels: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked.

    Attributes:
        asked: Beginnings of texts, or texts whose class is asked for.
        truths: How each goes on, or its label; None: nobody knows.
        source: Where they are from: ``held out``, or the name of a file.
    """

    asked: Sequence[str]
    truths: Sequence[str | None]
    source: str


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """What came of the tests by behaviour.

    Attributes:
        data_order: The test of the order of data, or why it could not be made.
        siblings: The test against siblings, or why it could not be made.
        agreement: The test of agreement, or why it could not be made.
        calibrated: Test -> the suspect among models known to be unrelated, for tests that may say ``STRONG``.
        beyond: Which of these it is beyond.
        n_questions: Questions asked of every model, and
        source: where they are from.
        left_out: Models that could not be asked, and why.
    """

    data_order: DataOrderTest | str
    siblings: SiblingTest | str
    agreement: Agreement | str
    calibrated: Mapping[str, Calibrated]
    beyond: tuple[str, ...] = ()
    n_questions: int = 0
    source: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def exact(self) -> dict[str, float]:
        """Exact test -> p-value."""
        found = {DATA_ORDER: self.data_order, SIBLINGS: self.siblings}
        return {name: test.p for name, test in found.items() if not isinstance(test, str)}


def cut(texts: Sequence[str], n: int) -> tuple[list[str], list[str]]:
    """Beginnings of texts and how they go on: one of each text, cut at a random place, the same ones every time.

    Args:
        texts: Texts; one of fewer than two characters cannot be cut.
        n: The most that are taken.
    """
    draw = np.random.default_rng(0)
    long_enough = [text for text in dict.fromkeys(texts) if len(text) > 1]
    chosen = draw.permutation(len(long_enough))[:n]
    places = [(long_enough[row], int(draw.integers(1, len(long_enough[row])))) for row in chosen]
    return [text[:place] for text, place in places], [text[place:] for text, place in places]


def observe(
    cast: Cast, seen: Seen | str, questions: Questions | str, n_texts: int, alpha: float, progress: Progress
) -> tuple[Behaviour, list[dict[str, Any]]]:
    """Ask everybody, and make the tests.

    Args:
        cast: Who is asked.
        seen: What the reference's run saw, or why that is not known.
        questions: What is asked, or why nothing can be.
        n_texts: The most training texts whose losses are asked for.
        alpha: The level of the family of exact tests; also sets how far beyond unrelated models is far.
        progress: Told of it.

    Returns:
        What came of it; and everything that was asked and answered, a row a text.

    Raises:
        DanluError: An endpoint cannot be reached, or does not answer as it should.
    """
    order, rows = (seen, []) if isinstance(seen, str) else _data_order(cast, seen, n_texts, progress)
    found = Behaviour(data_order=order, siblings="", agreement="", calibrated={}, left_out=dict(cast.left_out))
    if isinstance(questions, str):
        return replace(found, siblings=questions, agreement=questions), rows
    said: dict[str, list[str]] = {}
    for role, speaker in _everybody(cast):
        progress.stage(f"audit: what {speaker.name} answers to {len(questions.asked):,} questions")
        said[role] = speaker.answers(questions.asked)
    codes = _codes(list(said.values()))
    n_siblings = len(cast.siblings)
    suspect, family, controls = codes[0], codes[1 : 2 + n_siblings], codes[2:]
    sibling = _siblings(suspect, family)
    agreement = agreement_test(suspect, codes[1], controls, _wrong(said["reference"], questions.truths, cast))
    calibrated = {}
    if isinstance(sibling, SiblingTest):
        calibrated[SIBLINGS] = calibrate(sibling.value, sibling.siblings, int(own_answers(family).sum(1).min()), alpha)
    if isinstance(agreement, Agreement):
        counted = agreement.n if agreement.n_mistakes is None else agreement.n_mistakes
        # Where one control is not beaten, it is beyond none.
        value = agreement.value if agreement.p <= alpha else min(agreement.value, *agreement.controls)
        calibrated[AGREEMENT] = calibrate(value, agreement.controls, counted, alpha)
    for number, (asked, truth) in enumerate(zip(questions.asked, questions.truths, strict=True)):
        answers = {name: answered[number] for name, answered in said.items()}
        rows.append({"question": asked, "truth": truth, "answers": answers})
    return replace(
        found,
        siblings=sibling,
        agreement=agreement,
        calibrated=calibrated,
        beyond=tuple(name for name, each in calibrated.items() if each.beyond),
        n_questions=len(questions.asked),
        source=questions.source,
    ), rows


def taught(
    behaviour: Behaviour, corrected: Mapping[str, float], calibrated: Mapping[str, Calibrated], alpha: float
) -> bool:
    """Whether answers show kinship and weights, which were tested, show none: what distillation looks like.

    Args:
        behaviour: What came of the tests by behaviour.
        corrected: Exact test -> p corrected, of weights and behaviour.
        calibrated: Calibrated test -> the suspect among controls, of both.
        alpha: The level.
    """
    exact = {name: p <= alpha for name, p in corrected.items()}
    shown = exact.get(SIBLINGS, False) or bool(behaviour.beyond)
    weights = {name: found for name, found in exact.items() if name not in behaviour.exact}
    copied = [each.beyond for name, each in calibrated.items() if name not in behaviour.calibrated]
    return shown and bool(weights) and not any([*weights.values(), *copied, exact.get(DATA_ORDER, False)])


def _everybody(cast: Cast) -> list[tuple[str, Speaker]]:
    """Suspect, reference, siblings, controls, each under its role."""
    groups = {"sibling": cast.siblings, "control": cast.controls}
    named = [(f"{role} {number}", each) for role, group in groups.items() for number, each in enumerate(group, 1)]
    return [("suspect", cast.suspect), ("reference", cast.reference), *named]


def _data_order(
    cast: Cast, seen: Seen, n_texts: int, progress: Progress
) -> tuple[DataOrderTest | str, list[dict[str, Any]]]:
    times: dict[str, int] = {}
    for text in seen.texts:
        times[text] = times.get(text, 0) + 1
    once = np.array([row for row, text in enumerate(seen.texts) if times[text] == 1], np.int64)
    asked = np.sort(np.random.default_rng(0).permutation(once)[:n_texts])  # chosen before, and without, the order
    texts = [seen.texts[row] for row in asked]
    labels = None if seen.labels is None else [seen.labels[row] for row in asked]
    if len(texts) < FEWEST:
        return f"the reference was trained on {len(texts)} different texts: too few", []
    progress.stage(f"audit: what {len(texts):,} training texts cost {cast.suspect.name}")
    losses = cast.suspect.losses(texts, labels)
    if isinstance(losses, str):
        return losses, []
    if np.isinf(losses).any():
        return "the suspect finds some texts impossible", []
    read = np.flatnonzero(~np.isnan(losses))  # a text is too long by its own length, whenever it was trained on
    if len(read) < FEWEST:
        return f"the suspect reads {len(read)} of {len(texts)} texts whole: too few", []
    asked, losses, texts = asked[read], losses[read], [texts[row] for row in read]
    labels = None if labels is None else [labels[row] for row in read]
    name, others = _others(cast, texts, labels, progress)
    mean = np.mean(others, axis=0) if others else None
    excess = np.full(len(seen.texts), np.nan)
    excess[asked] = excess_losses(losses, np.array([len(text) for text in texts]), mean)
    progress.stage("audit: the order of data")
    found = data_order_test(
        seen.epochs,
        excess,
        seen.rates,
        seen.moved,
        subtracted=(name, len(others)),
        heard=lambda done, total: progress.update(done, total, "epochs"),
    )
    rows = [
        {"record": int(row), "text": text, "nats": float(nats)}
        for row, text, nats in zip(asked, texts, losses, strict=True)
    ]
    for row, subtracted in zip(rows, [] if mean is None else mean.tolist(), strict=False):
        row["others"] = subtracted
    return found, rows


def _others(
    cast: Cast, texts: Sequence[str], labels: Sequence[str] | None, progress: Progress
) -> tuple[str, list[npt.NDArray[np.float64]]]:
    """What to take off the suspect's losses: what siblings lose, else controls; nothing of the reference itself."""
    for name, group in (("siblings", cast.siblings), ("controls", cast.controls)):
        found = []
        for each in group:
            progress.stage(f"audit: what they cost {each.name}")
            losses = each.losses(texts, labels)
            if not isinstance(losses, str) and np.isfinite(losses).all():
                found.append(losses)
        if found:
            return name, found
    return "nothing", []


def _codes(answers: Sequence[Sequence[str]]) -> Codes:
    """Answers as numbers, ``[models, questions]``, equal where they are the same text as far as the shortest goes.

    Tokens of several tokenizers are of several lengths. The shortest answer to a question, of all models alike, says
    how much of each is compared; an empty one, which ends the text, is an answer of its own. Numbers follow from the
    texts and not from who said them, for the test against siblings may treat none of the family otherwise.
    """
    codes = np.empty((len(answers), len(answers[0])), np.int64)
    for column, given in enumerate(zip(*answers, strict=True)):
        shortest = min((len(each) for each in given if each), default=0)
        numbers = {text: number for number, text in enumerate(sorted({each[:shortest] for each in given}))}
        codes[:, column] = [numbers[each[:shortest]] for each in given]
    return codes


def _siblings(suspect: Codes, family: Codes) -> SiblingTest | str:
    if len(family) < 2:
        return "no siblings of the reference are at hand"
    n_odd = int((family != family[0]).any(0).sum())
    if n_odd < FEWEST:
        return f"the reference and its siblings answer {n_odd} questions differently: too few"
    value, *others = own_mistakes(suspect, family).tolist()
    return rank_test(value, others, "answers of one model alone")


def _wrong(reference: Sequence[str], truths: Sequence[str | None], cast: Cast) -> npt.NDArray[np.bool_] | None:
    """Which questions the reference answers wrongly; None: the right answers are not all known."""
    if any(truth is None for truth in truths):
        return None
    exactly = cast.reference.task == "text-classification"
    pairs = zip(reference, map(str, truths), strict=True)
    return np.array([said != truth if exactly else not (said and truth.startswith(said)) for said, truth in pairs])
