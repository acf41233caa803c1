"""What to do next, derived from the numbers: each rule looks at one thing and speaks only where there is a reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from danlu.report.facts import Facts, ModelFacts
from danlu.report.terms import REASONS
from danlu.report.words import Text, decimal, integer, marked, percent, points, t

__all__ = ["Advice", "advise", "commands"]

_SURE = 0.9
"""Confidence from which a mistake is worth reading: the label may be the mistake."""
_MANY_DROPPED = 0.2
_UNEQUAL = 4.0
"""Times that the largest class is as large as the smallest."""
_WIDE = 0.02
"""Half the width of an interval of macro F1 that hides what most changes bring."""
_RISE = 1.15
"""Times that the validation loss may end above its lowest."""
_POWER = 2.80
"""Standard errors that a difference must be for 80% power at p < 0.05: 1.96 + 0.84."""


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


def commands(facts: Facts) -> list[Advice]:
    """What anyone can do with the result at once."""
    shown = [*facts.ours.evaluation["most_confident_wrong"], *facts.ours.evaluation["slowest"]]
    shortest = min((example["text"] for example in shown), key=len, default="...")
    example = " ".join(shortest.replace("'", "’").split())[:24]
    found = [
        Advice(
            t("Ask the model", "向模型提问"),
            t("The answer comes with the probability of every class.", "回答附带每个类别的概率。"),
            f"danlu predict {facts.alias} '{example}'",
        )
    ]
    if facts.baseline:
        found.append(
            Advice(
                t("Compare again, also after a change", "再次比较，修改之后也可以"),
                t("The first model is the baseline of the paired tests.", "第一个模型是配对检验的基线。"),
                f"danlu compare {facts.baseline.model.name}@latest {facts.alias}",
            )
        )
    found.append(
        Advice(
            t("See every model and every decision", "查看所有模型与每次决定"),
            t("The ledger only ever grows, and each entry seals the one before.", "台账只增不改，每条都封存前一条。"),
            "danlu log",
        )
    )
    return found


def advise(facts: Facts) -> list[Advice]:
    """What the numbers suggest, the most pressing first."""
    rules = (_refused, _converged, _overfitted, _calibrated, _sure_mistakes, _slices, _balanced, _dropped, _small_test)
    return [advice for rule in rules for advice in rule(facts)]


def _refused(facts: Facts) -> Iterator[Advice]:
    gate, ours = facts.gate, facts.ours
    if gate["passed"] or ours.against is None or gate["difference"] is None or gate["difference"] <= 0:
        return
    error = (gate["high"] - gate["low"]) / (2 * 1.96)
    if error <= 0 or gate["difference"] / error >= _POWER:
        return
    n, needed = ours.evaluation["n"], ours.evaluation["n"] * (_POWER * error / gate["difference"]) ** 2
    if needed > 1000 * n:
        return
    yield Advice(
        t("Make the model clearly better, or test on more texts", "让模型明显更好，或用更多文本考核"),
        t(
            "If {d} points is the true difference, it takes about {m} test texts to show it four times in five; "
            "there are {n}.",
            "若真实差异为 {d} 个百分点，约需 {m} 条测试文本才能在五次中有四次显示出来；现有 {n} 条。",
            d=points(gate["difference"]),
            m=integer(float(f"{needed:.2g}")),
            n=integer(n),
        ),
    )


def _converged(facts: Facts) -> Iterator[Advice]:
    if facts.trained is None or facts.trained.training["best_step"] < facts.trained.training["n_steps"]:
        return
    epochs = facts.recipe.get("train", {}).get("epochs")
    yield Advice(
        t("Train longer", "延长训练"),
        t(
            "The best weights were those of the very last step ({n}): the validation score was still rising.",
            "最佳权重出现在最后一步（第 {n} 步）：验证分数仍在上升。",
            n=integer(facts.trained.training["best_step"]),
        ),
        f"danlu run RECIPE.yaml train.epochs={2 * epochs}" if isinstance(epochs, int) else None,
    )


def _overfitted(facts: Facts) -> Iterator[Advice]:
    curve = facts.trained.curve if facts.trained else ()
    losses = [point["valid"]["loss"] for point in curve if "valid" in point]
    if len(losses) < 3 or losses[-1] < _RISE * min(losses):
        return
    yield Advice(
        t("Hold the model back, or give it more text", "加强正则化，或增加文本"),
        t(
            "The validation loss rose from {low} to {last} while training went on; "
            "the weights kept are from before the end.",
            "训练继续时，验证损失从 {low} 升到 {last}；保留的是此前的权重。",
            low=decimal(min(losses)),
            last=decimal(losses[-1]),
        ),
        "danlu run RECIPE.yaml model.dropout=0.2" if "dropout" in facts.recipe.get("model", {}) else None,
    )


def _calibrated(facts: Facts) -> Iterator[Advice]:
    ours = facts.ours
    calibration, error = ours.evaluation["calibration"], ours.metric("ece")
    accuracy = ours.metric("accuracy")["value"]
    if calibration["p_calibrated"] >= 1 - ours.evaluation["confidence"] or error["value"] < 0.02:
        return
    over = calibration["mean_confidence"] > accuracy
    how = t("too sure of itself", "过于自信") if over else t("not sure enough of itself", "不够自信")
    yield Advice(
        t("Do not read its confidence as a probability", "不要把它的置信度当作概率"),
        t(
            "It is {how}: {c} sure on average and right in {a} of cases (calibration error {e}). "
            "Set thresholds by the reliability diagram, not by the number itself.",
            "它{how}：平均置信度 {c}，实际答对 {a}（校准误差 {e}）。请按可靠性图设定阈值，不要直接按数值。",
            how=how,
            c=percent(calibration["mean_confidence"]),
            a=percent(accuracy),
            e=decimal(error["value"]),
        ),
    )


def _sure_mistakes(facts: Facts) -> Iterator[Advice]:
    shown = facts.ours.evaluation["most_confident_wrong"]
    n_sure = sum(example["confidence"] >= _SURE for example in shown)
    if n_sure < 3:
        return
    yield Advice(
        t("Read the surest mistakes: some may be wrong labels", "读一读最确信的错误：有些可能是标签错了"),
        t(
            "{k} of the {n} surest mistakes listed here were made with at least {s} confidence. "
            "A wrong label in the test split lowers every model's score alike.",
            "此处列出的 {n} 个最确信的错误中，有 {k} 个置信度不低于 {s}。测试集中的错误标签会同样拉低每个模型的分数。",
            k=integer(n_sure),
            n=integer(len(shown)),
            s=percent(_SURE, 0),
        ),
    )


def _slices(facts: Facts) -> Iterator[Advice]:
    accuracy = facts.ours.metric("accuracy")
    weak = [part for part in facts.ours.evaluation["slices"]["n_chars"] if _below(part, accuracy["low"])]
    if not weak:
        return
    worst = min(weak, key=lambda part: part["accuracy"]["value"])
    yield Advice(
        t("Collect more texts of {name} characters", "补充 {name} 个字符的文本", name=worst["name"].replace("-", "–")),
        t(
            "There it is right in {a} of {n} test texts, against {all} overall; the intervals do not touch.",
            "这一段 {n} 条测试文本的准确率为 {a}，总体为 {all}；两个区间不相交。",
            a=percent(worst["accuracy"]["value"]),
            n=integer(worst["n"]),
            all=percent(accuracy["value"]),
        ),
    )


def _below(part: dict[str, dict[str, float | None]], low: float) -> bool:
    high = part["accuracy"]["high"]
    return high is not None and high < low


def _balanced(facts: Facts) -> Iterator[Advice]:
    labels = facts.summary["splits"]["train"]["labels"]
    if not labels:
        return
    small, large = min(labels, key=labels.__getitem__), max(labels, key=labels.__getitem__)
    if labels[large] < _UNEQUAL * labels[small]:
        return
    yield Advice(
        t("Bring more texts of the class {c}", "补充类别 {c} 的文本", c=marked(small)),
        t(
            "It has {s} training texts, and {l} has {k}. Watch its recall and macro F1, not accuracy.",
            "它只有 {s} 条训练文本，而 {l} 有 {k} 条。请看它的召回率与宏平均 F1，不要只看准确率。",
            s=integer(labels[small]),
            l=marked(large),
            k=integer(labels[large]),
        ),
    )


def _dropped(facts: Facts) -> Iterator[Advice]:
    summary = facts.summary
    if summary["n_dropped"] < _MANY_DROPPED * summary["n_read"]:
        return
    reason = max(summary["dropped"], key=summary["dropped"].__getitem__)
    yield Advice(
        t("Look at the dropped records", "查看被剔除的记录"),
        t(
            "{p} of what was read was dropped, most of it for one reason: {r}. "
            "The data card shows examples; the file beside the dataset holds them all.",
            "读入的记录有 {p} 被剔除，最多的原因是：{r}。数据卡中有示例，数据集旁的文件里是全部。",
            p=percent(summary["n_dropped"] / summary["n_read"]),
            r=REASONS.get(reason) or marked(reason),
        ),
        facts.shown(facts.dataset.path / "dropped.parquet"),
    )


def _small_test(facts: Facts) -> Iterator[Advice]:
    ours: ModelFacts = facts.ours
    score = ours.metric("macro_f1")
    if score["low"] is None or (score["high"] - score["low"]) / 2 < _WIDE:
        return
    yield Advice(
        t("Test on more texts", "用更多文本考核"),
        t(
            "With {n} test texts macro F1 is known to about ±{w} points only; four times as many would halve that.",
            "只有 {n} 条测试文本时，宏平均 F1 只能精确到约 ±{w} 个百分点；四倍的文本可使其减半。",
            n=integer(score["n"]),
            w=decimal(50 * (score["high"] - score["low"]), 1),
        ),
    )
