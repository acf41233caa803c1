"""Why did it say that? One answer of a classifier, and what each part of what was asked did to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from danlu.core.errors import DataError, UsageError, nearest
from danlu.data.clean import standard_texts
from danlu.explain import pictures, texts
from danlu.explain.alignment import align
from danlu.model.predictor import Predictor

__all__ = ["Attribution", "Span", "can_explain", "explain"]

_DIGITS = 6


class Span(NamedTuple):
    """A part of a text, and what it did.

    Attributes:
        text: The part.
        start: Its first character, counted in code points from 0, and
        end: the one after its last.
        weight: How far it moved the answer: towards the label above 0, away from it below.
    """

    text: str
    start: int
    end: int
    weight: float


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """An answer, explained.

    The weights share out the change of the margin (see :mod:`danlu.explain.gradients`) from something that says nothing
    to what was asked. They tell what moved this model, which need not be what is so.

    Attributes:
        label: The class that is explained.
        probability: What the model gives it.
        method: How the weights were found, for people.
        change: What the weights are the shares of: a difference of logits, from what says nothing to what was asked.
        gap: What the weights miss of it.
        text: What ``start`` and ``end`` of the spans count in: the text as it was asked. Where that cannot be told
            apart enough (it was repaired as a whole, for one), the text as the model reads it. "" of a picture.
        spans: The parts of the text that did something, in order; empty of a picture.
        weights_YX: float64, one a pixel; None of a text.
    """

    label: str
    probability: float
    method: str
    change: float
    gap: float
    text: str = ""
    spans: Sequence[Span] = ()
    weights_YX: np.ndarray | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        facts: dict[str, Any] = {
            "label": self.label,
            "probability": round(self.probability, _DIGITS),
            "method": self.method,
            "change": round(self.change, _DIGITS),
            "gap": round(self.gap, _DIGITS),
        }
        if self.weights_YX is None:
            spans = [{**span._asdict(), "weight": round(span.weight, _DIGITS)} for span in self.spans]
            return {**facts, "text": self.text, "spans": spans}
        height, width = self.weights_YX.shape
        return {**facts, "height": height, "width": width, "weights": self.weights_YX.round(_DIGITS).tolist()}


def can_explain(predictor: Predictor) -> bool:
    """Whether the answers of a model can be explained here."""
    if predictor.task == "text-classification":
        return texts.gives_reasons(predictor.answerer)
    return predictor.task == "image-classification" and pictures.gives_reasons(predictor.answerer)


def explain(predictor: Predictor, given: str | np.ndarray, label: str | None = None) -> Attribution:
    """Explain an answer of a classifier.

    Args:
        predictor: The classifier.
        given: A raw text; or a picture as :meth:`Predictor.open_images` gives it, uint8 ``[C, Y, X]``.
        label: The class to explain; None: the one that the model finds most probable.

    Raises:
        UsageError: The model is no classifier, or one that gives no reasons; or it has no such class.
        DataError: The picture is of another size than the model takes.
    """
    asks = {"text-classification": str, "image-classification": np.ndarray}.get(predictor.task)
    if asks is None:
        advice = "classifiers of texts and of pictures can be explained"
        raise UsageError(f"what a model for {predictor.task} says cannot be explained yet", advice=advice)
    if not isinstance(given, asks):
        raise UsageError(f"a model for {predictor.task} explains a {'text' if asks is str else 'picture'}")
    if isinstance(given, str):
        return _of_text(predictor, given, label)
    if given.shape != predictor.image_size:
        what = (
            f"the model takes pictures of {predictor.image_size} numbers, not {given.shape} (channels, height, width)"
        )
        raise DataError(what, where="the picture", advice="Predictor.open_images brings a file to the right size")
    number, name, probability = _class(predictor, predictor.image_proba(given[None])[0], label)
    found = pictures.shares_of_picture(predictor.answerer, given, number)
    return Attribution(
        label=name,
        probability=probability,
        method=found.method,
        change=found.change,
        gap=found.gap,
        weights_YX=found.weights_YX,
    )


def _of_text(predictor: Predictor, given: str, label: str | None) -> Attribution:
    number, name, probability = _class(predictor, predictor.predict_proba([given])[0], label)
    (text,) = standard_texts([given], predictor.clean)
    found = texts.shares_of_text(predictor.answerer, text, number)
    alignment = align(given, lambda parts: standard_texts(parts, predictor.clean))
    typed = found.moved([alignment.origin(extent) for extent in found.extents])
    if 2 * len(typed.extents) >= len(found.extents):
        text, found = given, typed
    return Attribution(
        label=name,
        probability=probability,
        method=found.method,
        change=found.change,
        gap=found.gap,
        text=text,
        spans=_spans(text, found),
    )


def _class(predictor: Predictor, probabilities_N: np.ndarray, label: str | None) -> tuple[int, str, float]:
    """The number, the name and the probability of the class that is asked about."""
    classes = list(predictor.classes)
    if label is not None and label not in classes:
        raise UsageError(f"the model has no class {label!r}", where="label", advice=nearest(label, classes))
    number = int(probabilities_N.argmax()) if label is None else classes.index(label)
    return number, classes[number], float(probabilities_N[number])


def _spans(text: str, shares: texts.Shares) -> tuple[Span, ...]:
    parts = zip(shares.extents, shares.weights.tolist(), strict=True)
    return tuple(Span(text[start:end], start, end, weight) for (start, end), weight in parts)
