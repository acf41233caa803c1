"""Every metric that a page can show: what it is called, how it is written, and which way is up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from markupsafe import Markup

from danlu.report.words import Text, decimal, percent, points, signed, significant, t

__all__ = ["METRICS", "Metric", "metrics"]

Write = Callable[[float | None], str]

_NONE = t("", "")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a page speaks of a metric.

    Attributes:
        name: What it is called.
        write: How a value is written.
        delta: How a difference is written.
        unit: What a difference is counted in.
        higher_is_better: Which way is up.
        wide: Half the width of an interval that hides what most changes bring.
        remark: What to know before reading it.
    """

    name: Text
    write: Write
    delta: Write
    unit: Text = _NONE
    higher_is_better: bool = True
    wide: float = 0.02
    remark: Text | None = None

    @property
    def scale(self) -> Text:
        """The unit, as a caption has it: without the Chinese counter."""
        return Text(self.unit.en, Markup(self.unit.zh.removeprefix("个")))  # noqa: S704 (a part of markup)


_POINTS = t("points", "个百分点")
_CHRF, _BLEU = t("chrF", "chrF"), t("BLEU", "BLEU")
_BITS = t("bits", "比特")
_one, _plus_one = partial(decimal, digits=1), partial(signed, digits=1)

METRICS = {
    "macro_f1": Metric(name=t("macro F1", "宏平均 F1"), write=percent, delta=points, unit=_POINTS),
    "accuracy": Metric(name=t("accuracy", "准确率"), write=percent, delta=points, unit=_POINTS),
    "auroc": Metric(name=t("AUROC", "AUROC 曲线下面积"), write=decimal, delta=signed),
    "ece": Metric(
        name=t("calibration error (ECE)", "校准误差（ECE）"),
        write=decimal,
        delta=signed,
        higher_is_better=False,
    ),
    "bits_per_character": Metric(
        name=t("bits per character", "每字符比特数"),
        write=decimal,
        delta=signed,
        unit=_BITS,
        higher_is_better=False,
        wide=0.05,
        remark=t("fewer is better", "越少越好"),
    ),
    "perplexity_per_token": Metric(
        name=t("perplexity per token", "每词元困惑度"),
        write=significant,
        delta=partial(signed, digits=1),
        higher_is_better=False,
        remark=t("not comparable where tokens differ", "词元不同则不可比"),
    ),
    "chrf": Metric(name=_CHRF, write=_one, delta=_plus_one, unit=_CHRF, wide=2.0),
    "bleu": Metric(name=_BLEU, write=_one, delta=_plus_one, unit=_BLEU, wide=2.0),
    "exact_match": Metric(name=t("exactly as the human", "与人工译文一致"), write=percent, delta=points, unit=_POINTS),
    "placeholders_kept": Metric(
        name=t("placeholders kept", "占位符保留"),
        write=percent,
        delta=points,
        unit=_POINTS,
        remark=t("of the sentences that have any", "仅计含占位符的句子"),
    ),
}


def metrics(*names: str) -> dict[str, Metric]:
    """Some of them by name, in this order."""
    return {name: METRICS[name] for name in names}
