"""What the page about an audit says of behaviour: what a suspect answers, beside siblings and unrelated models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from danlu.report.audit_pictures import axis_of_shares
from danlu.report.words import Text, code, decimal, integer, marked, percent, t

__all__ = ["BEHAVIOUR_REASONS", "BEHAVIOUR_TESTS", "behaviour_facts", "behaviour_sentence", "kept_files"]

BEHAVIOUR_TESTS = {
    "data order": t("order of data", "数据的顺序"),
    "siblings by behaviour": t("rank among siblings, by answers", "按回答在同胞模型中的名次"),
    "agreement": t("agreement beside unrelated models", "与无关模型相比的一致程度"),
}
_REASONS = {
    "the weights of one of the two are not at hand": "没有其中一方的权重",
    "the reference's data are not at hand, and no prompts were given": "没有参照模型的数据，也没有给出提问",
    "texts of the reference's data are not sent to another machine unless you say so": (
        "未经许可，参照模型的数据不会发往其他机器"
    ),
    "no models known to be unrelated are at hand": "没有已知无关的模型",
    "the seeds of its run are not here": "参照模型训练时的种子不在此处",
    "the seeds that are here are not those that the run committed to": "此处的种子不是该次训练承诺过的种子",
    "the order that seeds and dataset give is not the one that the run committed to": (
        "由种子与数据得出的顺序不是该次训练承诺过的顺序"
    ),
    "it has no chain.jsonl: it was not trained in steps, or by an earlier danlu": (
        "参照模型没有训练链记录（chain.jsonl）：它不是分步训练的，或由较早的 danlu 训练"
    ),
    "its classes are not those of the reference": "其类别与参照模型不同",
    "the suspect finds some texts impossible": "被审模型认为某些文本不可能出现",
    "fewer than three batches of any epoch have texts that were asked": "每一轮中含有所问文本的批次都不足三个",
}
BEHAVIOUR_REASONS = {
    **{english: t(english.replace("'", "’"), chinese) for english, chinese in _REASONS.items()},
    "the endpoint does not give the log-probabilities of a prompt (echo with logprobs)": t(
        "the endpoint does not give the log-probabilities of a prompt: there the order of data cannot be tested",
        "该接口不提供提示文本的对数概率，因此无法在其上检验数据的顺序",
    ),
}
"""Why a test by behaviour could not be made, where no numbers are in it."""


def behaviour_facts(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the section shows; None: nothing was asked.

    Returns:
        ``asked``: how much was asked; ``axis``: the picture, if there is one; ``notes``: what the picture shows;
        ``order``: what the test of the order of data rests on, if it was made; ``left_out``: who could not be asked.
    """
    found = facts.get("behaviour") or {}
    made = [found[name] for name in ("data_order", "siblings", "agreement") if found]
    if not any(isinstance(each, dict) for each in made):
        return None
    order, siblings, agreement = made
    rows, notes = [], []
    if isinstance(siblings, dict):
        rows.append((t("own mistakes", "独有的错误"), siblings["value"], siblings["siblings"]))
        notes.append(_of_siblings(siblings))
    if isinstance(agreement, dict):
        rows.append((t("same answers", "相同的回答"), agreement["value"], agreement["controls"]))
        notes.append(_of_agreement(agreement, "agreement" in found["beyond"], facts["alpha"]))
    return {
        "asked": _asked(found),
        "axis": axis_of_shares(rows) if rows else None,
        "notes": notes,
        "order": _of_order(order) if isinstance(order, dict) else None,
        "left_out": [(name, why) for name, why in found["left_out"].items()],
    }


def behaviour_sentence(facts: Mapping[str, Any], names: Mapping[str, Markup]) -> Text:
    """The sentence at the top, where behaviour is beyond all models that it was held against."""
    found = facts["behaviour"]
    if "siblings by behaviour" in found["beyond"]:
        return t(
            "{b} repeats mistakes that only {a} makes, far more often than those of any of its {n} siblings: {s} "
            "against at most {m}. With so few siblings no exact test can show it: this is an indication and no proof.",
            "{b} 重复只有 {a} 才犯的错误，远多于重复其 {n} 个同胞模型中任何一个独有的错误：{s}，后者至多 {m}。"
            "同胞模型太少，精确检验无法证实，因此只是迹象，不是证明。",
            **names,
            n=integer(len(found["siblings"]["siblings"])),
            s=percent(found["siblings"]["value"]),
            m=percent(max(found["siblings"]["siblings"])),
        )
    agreement = found["agreement"]
    return t(
        "{b} answers as {a} does far more often than all {n} models known to be unrelated: {s} against at most {m} of "
        "the {q} questions that were counted. A model taught on the same texts may do that, too: this is an indication "
        "and no proof.",
        "{b} 与 {a} 回答一致的次数远多于全部 {n} 个已知无关的模型：在所计的 {q} 个问题中为 {s}，后者至多 {m}。"
        "用相同文本训练的模型也可能如此；因此只是迹象，不是证明。",
        **names,
        n=integer(len(agreement["controls"])),
        s=percent(agreement["value"]),
        m=percent(max(agreement["controls"])),
        q=integer(agreement["n"] if agreement["n_mistakes"] is None else agreement["n_mistakes"]),
    )


def _asked(found: Mapping[str, Any]) -> Text:
    if not found["n_questions"]:
        return t(
            "No weights are needed here. No questions were asked; training texts alone were shown.",
            "此处不需要权重。未提出问题，只出示了训练文本。",
        )
    held_out = t("texts that the reference was not trained on", "参照模型未曾训练过的文本")
    source = held_out if found["source"] == "held out" else t("{f}", "{f}", f=marked(found["source"]))
    return t(
        "No weights are needed here. Every model was asked the same {n} questions, from {source}: how a text goes on, "
        "or what class it is of.",
        "此处不需要权重。每个模型回答同样的 {n} 个问题，来自{source}：一段文本如何继续，或属于哪一类。",
        n=integer(found["n_questions"]),
        source=source,
    )


def _of_siblings(test: Mapping[str, Any]) -> Text:
    return t(
        "<b>Own mistakes.</b> Where one model of the family answers otherwise than most of them do, how often does the "
        "suspect answer as that one? Red: as the reference ({s}); blue: as each of its {n} siblings. To a model that "
        "did not learn from the reference, it is one of the family like the others.",
        "<b>独有的错误。</b>当同族中某个模型的回答与多数不同，被审模型有多常与它一致？红点：与参照模型（{s}）；"
        "蓝点：与其 {n} 个同胞模型。对没有向参照模型学习过的模型而言，参照模型与其他同胞并无不同。",
        s=percent(test["value"]),
        n=integer(len(test["siblings"])),
    )


def _of_agreement(test: Mapping[str, Any], is_beyond: bool, alpha: float) -> Text:
    on_all = t(
        "of all {n} questions, for the right answers are not known",
        "在全部 {n} 个问题中（正确答案未知）",
        n=integer(test["n"]),
    )
    on_mistakes = t(
        "of the {n} questions that the reference answers wrongly, for where it is right, others are, too",
        "在参照模型答错的 {n} 个问题中（它答对的，别人也会答对）",
        n=integer(test["n_mistakes"]),
    )
    method = t(
        "p {p}, McNemar’s exact test, Holm over all models",
        "p {p}，McNemar 精确检验，经 Holm 校正",
        p=_small(test["p"]),
    )
    if is_beyond:
        result = t(
            "Every one of these is beaten by far, on these questions and on all ({method})",
            "在这些问题与全部问题上都远远超过其中每一个（{method}）",
            method=method,
        )
    elif test["p"] <= alpha:
        result = t(
            "Every one of these is beaten ({method}), but they are too few, or too unlike each other, to call it far",
            "其中每一个都被超过（{method}），但它们太少或彼此差异太大，不能称为远远超过",
            method=method,
        )
    else:
        result = t("Not every one of these is beaten ({method})", "并非每一个都被超过（{method}）", method=method)
    return t(
        "<b>Same answers.</b> How often does a model answer as the reference does, {where}? Red: the suspect ({s}); "
        "blue: {m} models known to be unrelated, siblings among them. {result}. This test is calibrated by those "
        "models, and convicts nobody: a model taught on the same texts may agree more than models taught on others.",
        "<b>相同的回答。</b>{where}，一个模型有多常与参照模型回答一致？红点：被审模型（{s}）；"
        "蓝点：{m} 个已知无关的模型，包括同胞模型。{result}。"
        "该检验以这些模型校准，不能定论：用相同文本训练的模型可能比其他模型更一致。",
        where=on_all if test["n_mistakes"] is None else on_mistakes,
        s=percent(test["value"]),
        m=integer(len(test["controls"])),
        result=result,
    )


def _of_order(test: Mapping[str, Any]) -> Text:
    subtracted = {
        "siblings": t("the mean loss of {n} siblings", "{n} 个同胞模型的平均损失", n=integer(test["n_subtracted"])),
        "controls": t(
            "the mean loss of {n} unrelated models", "{n} 个无关模型的平均损失", n=integer(test["n_subtracted"])
        ),
        "nothing": t("nothing of other models, for none was at hand", "没有其他模型可用，故未扣除"),
    }
    rho = min(test["rho"])
    return t(
        "<b>Order of data.</b> The reference’s run drew the order of its texts from its own seed, and remembers best "
        "what it saw while its learning rate was high and little came after. The suspect’s losses on {n} of these "
        "texts were held against that order; taken off was what goes with a text’s length, and {subtracted}. "
        "Correlation of the trace that a step should leave and the loss, in epoch {k}, where it shows most: {rho} "
        "(below 0: what should be remembered best is).",
        "<b>数据的顺序。</b>参照模型的训练用自己的种子抽取文本顺序，对学习率较高且其后训练不多时所见的文本记得最好。"
        "此处把被审模型在其中 {n} 条文本上的损失与该顺序对照；已扣除随文本长度变化的部分，以及{subtracted}。"
        "每一步应留下的痕迹与损失的相关，在最明显的第 {k} 轮为 {rho}（低于 0 表示应记得更好的确实记得更好）。",
        n=integer(test["n"]),
        subtracted=subtracted[test["subtracted"]],
        k=integer(1 + test["rho"].index(rho)),
        rho=decimal(rho, 3),
    )


def _small(p: float) -> Markup:
    return Markup('<span translate="no">{}</span>').format(f"{p:.2g}")


def kept_files() -> Text:
    """Where what was asked and answered is."""
    return t(
        "What was asked and answered is beside this page: {a}; and word for word, where endpoints were asked: {r}.",
        "提问与回答保存在本页旁：{a}；若询问了接口，其原文在：{r}。",
        a=code("answers.jsonl"),
        r=code("requests.jsonl"),
    )
