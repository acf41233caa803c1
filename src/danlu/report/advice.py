"""What to do next, derived from the numbers: each rule looks at one thing and speaks only where there is a reason."""

from __future__ import annotations

from collections.abc import Iterator

from danlu.report.facts import Facts
from danlu.report.task import Advice, TaskReport
from danlu.report.terms import REASONS
from danlu.report.words import decimal, integer, marked, percent, t

__all__ = ["advise", "commands"]

_MANY_DROPPED = 0.2
_POWER = 2.80
"""Standard errors that a difference must be for 80% power at p < 0.05: 1.96 + 0.84."""


def commands(facts: Facts, task: TaskReport) -> list[Advice]:
    """What anyone can do with the result at once."""
    found = [Advice(*task.ask, f"danlu predict {facts.alias} {task.prompt(facts)}")]
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


def advise(facts: Facts, task: TaskReport) -> list[Advice]:
    """What the numbers suggest, the most pressing first."""
    found = [*_refused(facts, task), *_converged(facts), *_overfitted(facts, task)]
    found += [advice for rule in task.rules for advice in rule(facts)]
    return [*found, *_dropped(facts), *_small_test(facts, task)]


def _refused(facts: Facts, task: TaskReport) -> Iterator[Advice]:
    gate, ours, metric = facts.gate, facts.ours, task.metrics[facts.primary]
    if gate["passed"] or ours.against is None or gate["difference"] is None:
        return
    gain = gate["difference"] if metric.higher_is_better else -gate["difference"]
    error = (gate["high"] - gate["low"]) / (2 * 1.96)
    if gain <= 0 or error <= 0 or gain / error >= _POWER:
        return
    n, needed = ours.evaluation["n"], ours.evaluation["n"] * (_POWER * error / gain) ** 2
    if needed > 1000 * n:
        return
    yield Advice(
        t(
            "Make the model clearly better, or test on more {x}",
            "让模型明显更好，或用更多{x}考核",
            x=task.noun.many,
        ),
        t(
            "If {d} {unit} is the true difference, it takes about {m} to show it four times in five; there are {n}.",
            "若真实差异为 {d} {unit}，约需 {m}才能在五次中有四次显示出来；现有 {n}。",
            d=metric.delta(gate["difference"]),
            unit=metric.unit,
            m=task.noun.tested(float(f"{needed:.2g}")),
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


def _overfitted(facts: Facts, task: TaskReport) -> Iterator[Advice]:
    curve = facts.trained.curve if facts.trained else ()
    scores = [point["valid"] for point in curve if "valid" in point]
    key = "loss" if scores and "loss" in scores[0] else task.curve.key
    losses = [score[key] for score in scores]
    if len(losses) < 3 or losses[-1] < task.curve.rise * min(losses):
        return
    yield Advice(
        t("Hold the model back, or give it more {x}", "加强正则化，或增加{x}", x=task.noun.many),
        t(
            "The {what} rose from {low} to {last} while training went on; the weights kept are from before the end.",
            "训练继续时，{what}从 {low} 升到 {last}；保留的是此前的权重。",
            what=t("validation loss", "验证损失") if key == "loss" else task.curve.name,
            low=decimal(min(losses)),
            last=decimal(losses[-1]),
        ),
        "danlu run RECIPE.yaml model.dropout=0.2" if "dropout" in facts.recipe.get("model", {}) else None,
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


def _small_test(facts: Facts, task: TaskReport) -> Iterator[Advice]:
    metric, score = task.metrics[facts.primary], facts.ours.metric(facts.primary)
    if score["low"] is None or (score["high"] - score["low"]) / 2 < metric.wide:
        return
    yield Advice(
        t("Test on more {x}", "用更多{x}考核", x=task.noun.many),
        t(
            "With {n}, {metric} is known to about ±{w} {unit} only; four times as many would halve that.",
            "只有 {n}时，{metric}只能精确到约 ±{w} {unit}；四倍的数量可使其减半。",
            n=task.noun.tested(score["n"]),
            metric=metric.name,
            w=metric.delta((score["high"] - score["low"]) / 2).lstrip("+"),
            unit=metric.unit,
        ),
    )
