"""The page that lays the curves of several trainings over each other, and what a terminal says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from danlu.core.config import leaves
from danlu.core.errors import UsageError
from danlu.report.curve_pictures import MOST, Axis, Line, overlaid, smoothed, style_of, time_axis
from danlu.report.histories import History, Spent, at
from danlu.report.task import TASKS, Curve
from danlu.report.words import Text, code, decimal, integer, short, t

__all__ = ["Together", "View"]

_PRETRAINED = Curve(
    name=t("loss on hidden tokens", "遮蔽词元的损失"), key="loss", sign=-1, write=decimal, best=t("lowest", "最低")
)
"""What is watched while a backbone learns from texts alone."""
_PER_TOKEN = ("language-modelling", "masked-language-modelling", "translation")
"""Tasks whose loss is that of a token, and so depends on how texts are cut into tokens."""

Point = tuple[float, float]


@dataclass(frozen=True)
class View:
    """Loss and validation score against one thing.

    Attributes:
        title: Against what.
        loss: The picture of the training losses.
        score: The picture of the validation scores; None where there is none yet.
    """

    title: Text
    loss: Markup | None
    score: Markup | None


@dataclass(frozen=True)
class Together:
    """Trainings to be compared.

    Attributes:
        histories: One or more, of one task and one kind.

    Raises:
        UsageError: They learn different things, two of them are one, or there are too many to be told apart.
    """

    histories: Sequence[History]

    def __post_init__(self) -> None:
        first = self.histories[0]
        if len(self.histories) > MOST:
            what = f"{len(self.histories)} curves in one picture, of which {MOST} at most can be told apart"
            raise UsageError(what, advice="name fewer")
        by_path: dict[Any, str] = {}
        for each in self.histories:
            path = each.path.absolute()
            if path in by_path:
                raise UsageError(f"{by_path[path]} and {each.label} are the same", advice="name each once")
            by_path[path] = each.label
        others = [each for each in self.histories if (each.kind, each.task) != (first.kind, first.task)]
        if others:
            raise UsageError(
                f"{first.label} ({_learns(first)}) and {others[0].label} ({_learns(others[0])}) learn different things",
                advice="compare those that learn the same: neither losses nor scores of others mean the same",
            )

    @cached_property
    def curve(self) -> Curve:
        """What was watched on the validation split."""
        first = self.histories[0]
        found: Curve = _PRETRAINED if first.kind == "pretrained" else TASKS[first.task].curve
        return found

    @property
    def best(self) -> History | None:
        """The one with the best validation score."""
        scored = [each for each in self.histories if each.best]
        return max(scored, key=lambda each: each.best[1] if each.best else 0, default=None)

    def differences(self) -> dict[str, list[Any]]:
        """What they were made with and from, where that is not the same for all: key -> a value each, or None."""
        made_with = [
            dict(leaves(dict(each.config))) | {role: digest[:12] for role, digest in each.parents.items()}
            for each in self.histories
        ]
        keys = dict.fromkeys(key for values in made_with for key in values)
        found = {key: [values.get(key) for values in made_with] for key in keys}
        return {key: values for key, values in found.items() if any(value != values[0] for value in values)}

    def unknown_cost(self) -> list[History]:
        """Those of which nobody knows what a step cost, so that they can be compared by step only."""
        return [each for each in self.histories if not each.spent]

    def cautions(self) -> Iterator[Text]:
        """What keeps the curves from being compared as they stand."""
        if old := self.unknown_cost():
            names = Markup(", ").join(code(each.label) for each in old)
            yield t(
                "{names}: made by an earlier danlu, which did not keep what each step cost; shown by step only.",
                "{names}：由较早的 danlu 训练，当时没有保存每一步的开销；只按步数展示。",
                names=names,
            )
        different = self.differences()
        if "dataset" in different:
            yield t(
                "They were trained and validated on different data: their scores are of different records.",
                "训练与验证所用的数据不同：各自的得分来自不同的记录。",
            )
        cut = {"dataset", "texts", "start"} & different.keys() or any(key.startswith("tokenizer.") for key in different)
        if cut and (self.histories[0].task in _PER_TOKEN or self.curve is _PRETRAINED):
            yield t(
                "Their tokenizers may differ: a loss per token then says little about which is better.",
                "分词器可能不同：此时每个词元的损失说明不了孰优孰劣。",
            )

    def views(self) -> list[View]:
        """The pictures: against steps and, where it is known what steps cost, against tokens and time."""
        found = [self._view(t("By step", "按步数"), Axis(t("steps", "步"), integer), None)]
        timed = [each for each in self.histories if each.spent]
        if timed:
            tokens, seconds = Axis(t("tokens", "词元"), short), time_axis(max(each.spent[-1].seconds for each in timed))
            found.append(self._view(t("By tokens read", "按读过的词元"), tokens, lambda spent: spent.n_tokens))
            found.append(self._view(t("By time", "按时间"), seconds, lambda spent: spent.seconds))
        return found

    def _view(self, title: Text, axis: Axis, cost: Callable[[Spent], float] | None) -> View:
        losses, scores = [], []
        for index, each in enumerate(self.histories):
            raw, style = _against(each, each.losses, cost), style_of(index)
            smooth = smoothed(raw)
            losses.append(Line(each.label, style, smooth, raw))
            valid = each.valid(self.curve.key)
            best = [point for point in valid if each.best and point[0] == each.best[0]]
            marked = _against(each, best, cost)
            scores.append(Line(each.label, style, _against(each, valid, cost), best=marked[0] if marked else None))
        label = t("Training loss", "训练损失")
        scored = t("Validation: {what}", "验证集：{what}", what=self.curve.name)
        return View(
            title,
            _drawn(losses, axis, lambda value: f"{value:g}", label, falls=True),
            _drawn(scores, axis, self.curve.write, scored, falls=self.curve.key == "loss"),
        )


def _drawn(
    lines: Sequence[Line], axis: Axis, write: Callable[[float], str], label: Text, *, falls: bool
) -> Markup | None:
    shown = [each for each in lines if each.points]
    return overlaid(shown, axis, write, label, falls=falls) if shown else None


def _against(history: History, points: Sequence[Point], cost: Callable[[Spent], float] | None) -> list[Point]:
    """Points by step as points by what their steps cost; those whose cost is not known are left out."""
    if cost is None:
        return list(points)
    spent = history.spent
    return [(cost(at(spent, step)), y) for step, y in points if spent and step <= spent[-1].step]


def _learns(history: History) -> str:
    return history.task if history.kind == "model" else f"pre-training for {history.task}"
