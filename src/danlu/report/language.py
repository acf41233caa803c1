"""Language modelling: the pictures and the advice of its report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from danlu.report.facts import Facts
from danlu.report.kinds import TEXT
from danlu.report.metrics import metrics
from danlu.report.slices import length_forest, length_slices, span
from danlu.report.task import Advice, Curve, TaskReport
from danlu.report.words import code, decimal, integer, percent, t, typed

__all__ = ["LANGUAGE_MODELLING"]

_BITS = "bits_per_character"
_STRANGE = 1.5
"""Times the mean of all texts from which a text is like none of them."""
_PROMPT = 8
"""Characters of a text that a model is asked to continue."""


def _gain(facts: Facts) -> str:
    assert facts.baseline is not None, "the gate compared the model with it"
    return percent(-facts.gate["difference"] / facts.baseline.metric(_BITS)["value"])


def _more(facts: Facts) -> dict[str, Any]:
    """The samples of the model, each beside the baseline's continuation of the same prompt."""
    others = facts.baseline.evaluation.get("samples", []) if facts.baseline else []
    theirs = {sample["prompt"]: sample["continuation"] for sample in others}
    samples = [
        {
            "prompt": sample["prompt"],
            "ours": sample["continuation"],
            "theirs": theirs.get(sample["prompt"]),
            "true": sample.get("true"),
        }
        for sample in facts.ours.evaluation.get("samples", [])
    ]
    return {"samples": samples}


def _strange_texts(facts: Facts) -> Iterator[Advice]:
    shown, mean = facts.ours.evaluation["hardest"], facts.ours.metric(_BITS)["value"]
    n_strange = sum(example[_BITS] >= _STRANGE * mean for example in shown)
    if n_strange < 3:
        return
    yield Advice(
        t("Read the hardest texts: some may not belong here", "读一读最难的文本：有些可能不该在这里"),
        t(
            "{k} of the {n} hardest texts listed here need at least {s} times as many bits a character as the whole "
            "test split: other languages, lists and broken text look like this.",
            "此处列出的 {n} 条最难的文本中，有 {k} 条每字符所需的比特至少是整个测试集的 {s} 倍："
            "外语、清单和乱码往往如此。",
            k=integer(n_strange),
            n=integer(len(shown)),
            s=decimal(_STRANGE, 1),
        ),
    )


def _lost_slice(facts: Facts) -> Iterator[Advice]:
    if facts.baseline is None:
        return
    others = {part["name"]: part for part in length_slices(facts.baseline)}
    pairs = [(part, others[part["name"]]) for part in length_slices(facts.ours) if part["name"] in others]
    lost = [pair for pair in pairs if pair[0][_BITS]["low"] > pair[1][_BITS]["high"]]
    if not lost:
        return
    ours, theirs = max(lost, key=lambda pair: pair[0][_BITS]["value"] - pair[1][_BITS]["value"])
    yield Advice(
        t("Find out what texts of {name} characters are", "弄清 {name} 个字符的文本是什么", name=span(ours)),
        t(
            "There {base} needs fewer bits a character ({b}, against {o}); the intervals do not touch.",
            "这一段 {base} 每字符所需比特更少（{b}，而本模型为 {o}）；两个区间不相交。",
            base=code(facts.baseline.label),
            b=decimal(theirs[_BITS]["value"]),
            o=decimal(ours[_BITS]["value"]),
        ),
    )


def _prompt(facts: Facts) -> str:
    shown = [*facts.ours.evaluation["easiest"], *facts.ours.evaluation["hardest"]]
    return typed(next((example["text"] for example in shown), "..."), _PROMPT)


LANGUAGE_MODELLING = TaskReport(
    page="language-modelling.html",
    card="language-modelling.md",
    noun=TEXT,
    metrics=metrics(_BITS, "perplexity_per_token"),
    better=("The model needs {d} fewer bits than the simple baseline", "模型所需的比特比简单基线少 {d}"),
    alone=(
        "The model needs {v} bits per character; nothing was compared with it",
        "模型每字符需要 {v} 比特，未与任何模型比较",
    ),
    scored=("On {n} {m} needs <b>{v}</b> {ci} {metric}", "在 {n}上，{m} 的{metric}为 <b>{v}</b> {ci}"),
    answers=t("reads one text", "读一条文本"),
    once=t("one text", "读一条文本"),
    ask=(t("Let it go on", "让模型续写"), t("It continues what you begin.", "你起头，它续写。")),
    gain=_gain,
    curve=Curve(
        name=t("bits per character", "每字符比特数"),
        key=_BITS,
        sign=-1,
        write=decimal,
        best=t("fewest", "最少"),
        rise=1.03,
    ),
    read=t("tokens read", "读过的词元"),
    pictures=lambda facts: length_forest(facts, _BITS),
    more=_more,
    rules=(_strange_texts, _lost_slice),
    prompt=_prompt,
)
