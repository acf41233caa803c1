"""What a report says differently for each task: the words, the metrics, the pictures and the advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from danlu.core.table import Table
from danlu.report.facts import Facts
from danlu.report.metrics import Metric, Write
from danlu.report.words import Noun, Text

__all__ = ["TASKS", "Advice", "Curve", "Phrase", "Rule", "TaskReport"]

Phrase = tuple[str, str]
"""A sentence in English and in Chinese with ``{name}`` where a value goes: what :func:`danlu.report.words.t` takes."""


@dataclass(frozen=True)
class Advice:
    """Something worth doing.

    Attributes:
        what: What to do.
        why: The numbers that say so.
        command: What to type or to open, where there is something.
    """

    what: Text
    why: Text
    command: str | None = None


Rule = Callable[[Facts], Iterator[Advice]]
"""Looks at one thing and speaks only where there is a reason."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What training watched on the validation split.

    Attributes:
        name: What it is called.
        key: Its name in a line of the curve.
        sign: What turns it into the score that picks the weights: -1 where less is better.
        write: How a value is written.
        best: The best of it, for the sentence that tells which weights were kept.
        rise: Times that a loss on the validation split may end above its lowest before a page speaks of it.
    """

    name: Text
    key: str
    sign: int
    write: Write
    best: Text
    rise: float = 1.15

    def of(self, score: float | None) -> float | None:
        """The value that a score stands for."""
        return None if score is None else self.sign * score


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """How results of one task are told.

    Attributes:
        page: The template of its report, which fills the blocks of ``report.html``.
        card: The template of its model card, which fills the blocks of ``card.md``.
        noun: What is asked of the model.
        metrics: The rows of the leaderboard; the one that decides is among them.
        better: The headline if the model beats the baseline, by ``{d}``.
        alone: The headline if nothing was compared with it; it has ``{v}``.
        scored: The model's score: ``{metric}``, ``{m}``, ``{n}``, ``{v}`` and its interval ``{ci}``.
        answers: What it does with one record, in a sentence about how long that takes.
        once: The same, as a caption.
        ask: What it can be asked for, and what it answers.
        gain: What stands for ``{d}`` in ``better``.
        curve: What training watched.
        read: What training read, in the plan.
        pictures: The pictures that its template shows besides those of every task.
        more: What else its template needs.
        rules: Its advice besides that for every task.
        prompt: Something to try the model with, as typed after ``danlu predict NAME``.
        compared: Other metrics than the one that decides whose difference from the baseline is shown.
    """

    page: str
    card: str
    noun: Noun
    metrics: Mapping[str, Metric]
    better: Phrase
    alone: Phrase
    scored: Phrase
    answers: Text
    once: Text
    ask: tuple[Text, Text]
    gain: Callable[[Facts], str]
    curve: Curve
    read: Text
    pictures: Callable[[Facts], dict[str, Markup]]
    more: Callable[[Facts], dict[str, Any]]
    rules: tuple[Rule, ...]
    prompt: Callable[[Facts], str]
    compared: tuple[str, ...] = ()


TASKS = Table(
    "task to report on",
    "danlu.reports",
    {
        "text-classification": "danlu.report.classification:TEXTS",
        "image-classification": "danlu.report.classification:PICTURES",
        "language-modelling": "danlu.report.language:LANGUAGE_MODELLING",
        "translation": "danlu.report.translation:TRANSLATION",
    },
)
"""Task -> :class:`TaskReport`."""
