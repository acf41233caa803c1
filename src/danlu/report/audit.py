"""The page about an audit, for a reader who is no statistician."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import reduce
from typing import Any

from markupsafe import Markup

from danlu._version import __version__
from danlu.core.artifact import environment
from danlu.report.audit_behaviour import (
    BEHAVIOUR_REASONS,
    BEHAVIOUR_TESTS,
    behaviour_facts,
    behaviour_sentence,
    kept_files,
)
from danlu.report.audit_pictures import axis_of_chance, block_map
from danlu.report.page import render
from danlu.report.words import Text, code, decimal, integer, marked, percent, t

__all__ = ["audit_page"]

COMPONENTS = {
    "feed-forward": t("feed-forward units", "前馈单元"),
    "values": t("attention values", "注意力值通道"),
}
TESTS = {
    "order of feed-forward": t("order of feed-forward units", "前馈单元的顺序"),
    "order of values": t("order of attention values", "注意力值通道的顺序"),
    "content": t("matrices the same to the last bit", "逐位相同的矩阵"),
    "seed": t("random start (seed)", "随机起点（种子）"),
    "siblings": t("rank among siblings", "在同胞模型中的名次"),
    **BEHAVIOUR_TESTS,
}
TYPES = {
    "identical": t("identical", "完全相同"),
    "repackaged": t("the same weights, packed otherwise", "权重相同，重新打包"),
    "experts upcycled": t("its feed-forward parts were made experts", "前馈部分被复制成多个专家"),
    "depth changed": t("blocks added, removed or repeated", "层数改变"),
    "width changed": t("width changed", "宽度改变"),
    "partial": t("only a part of it is the reference’s", "只有一部分来自参照模型"),
    "merged": t("merged from several models", "由多个模型合并"),
    "quantised": t("quantised", "量化"),
    "pruned": t("pruned", "剪枝"),
    "LoRA merged": t("a LoRA adapter merged in", "合并了 LoRA 适配器"),
    "noise added": t("noise was added to its weights", "权重中加入了噪声"),
    "trained further": t("trained further, or changed in another way", "继续训练或微调，或以其他方式改动"),
    "derived": t("derived; how cannot be read", "派生，方式无法判断"),
    "distilled": t("taught by its answers (distilled)", "从其回答学来（蒸馏）"),
}
PARTS = {
    "embeddings": t("token vectors", "词向量"),
    "attention": t("attention", "注意力"),
    "feed-forward": t("feed-forward parts", "前馈部分"),
}
DISGUISES = {
    "rotated": t("its sequence was rotated", "残差流被旋转"),
    "reordered": t("its units were put into another order", "单元顺序被打乱"),
    "rescaled": t("its units or channels were rescaled", "单元或通道被缩放"),
    "heads turned": t("the channels of its heads were turned", "注意力头内的通道被旋转"),
}
REASONS = {
    "the seeds of the reference's run are not at hand": t(
        "the seeds of the reference’s run are not at hand", "没有参照模型训练时的种子"
    ),
    "no siblings of the reference are at hand": t("no siblings of the reference are at hand", "没有参照模型的同胞模型"),
    "the reference has no matrix of units that are known to be interchangeable": t(
        "the reference has no matrix of units that are known to be interchangeable",
        "参照模型没有已知可互换单元的矩阵",
    ),
    "there are no Transformer blocks in one of the two": t(
        "there are no Transformer blocks in one of the two", "其中一个模型没有 Transformer 层"
    ),
    "the units of the reference were put into an order by their size, so that it is no longer chance": t(
        "the units of the reference were put into an order by their size, so that it is no longer chance",
        "参照模型的单元已按大小排过序，顺序不再是随机的",
    ),
    "the two have different numbers of heads": t("the two have different numbers of heads", "两者的注意力头数不同"),
    **BEHAVIOUR_REASONS,
}
"""Why a test could not be made, where no numbers are in it."""
_LOOKS_ALIKE = 0.9
"""Cosine or correlation from which on a reader may take two models for one."""
VERDICTS = {
    "PROVEN": t("Proven: not independent", "已证实：并非相互独立"),
    "SHARED START": t("They share a random start that anybody may have", "共有一个任何人都可能使用的随机起点"),
    "STRONG": t("Strong indication of kinship, no proof", "强烈迹象，但非证明"),
    "CONTEXT ONLY": t("Alike, but no exact test shows kinship", "有相似之处，但没有精确检验证实"),
    "NO EVIDENCE": t("No evidence of kinship", "没有证据"),
    "ABSTAIN": t("No test could be made", "无法检验"),
}


def audit_page(facts: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """The page.

    Args:
        facts: The content of ``audit.json``.
        digests: role -> digest of every model that took part.
    """
    order = {name: test for name, test in facts["order"].items() if isinstance(test, dict)}
    shown = [test for name, test in order.items() if facts["p"].get(f"order of {name}", 1.0) <= facts["alpha"]]
    test = max(shown, key=lambda made: made["z"], default=None)  # blocks that agree by chance are no map
    rows = [(COMPONENTS[name], made["z"], facts["control_order"][name]) for name, made in order.items()]
    behaved = facts.get("behaviour") or {}
    if isinstance(behaved.get("data_order"), dict):
        rows.append((TESTS["data order"], behaved["data_order"]["z"], ()))
    return render(
        "audit.html",
        facts=facts,
        order=order,
        why={name: why for name, why in facts["order"].items() if isinstance(why, str)},
        headline=VERDICTS[facts["verdict"]],
        sentence=_sentence(facts, order),
        part=_part(facts),
        wording=_wording(facts),
        tests=TESTS,
        reason_of=lambda why: REASONS.get(why, marked(why)),
        components=COMPONENTS,
        types=_types(facts),
        disguises=[DISGUISES[name] for name in facts["disguises"]],
        axis=axis_of_chance(rows) if rows else None,
        blocks=_blocks(facts, test) if test else None,
        likeness=_likeness(facts) if facts["likeness"] else [],
        no_proof=_why_no_proof(facts["likeness"]) if facts["likeness"] else [],
        behaviour=behaviour_facts(facts),
        behaved=behaved,
        kept=kept_files(),
        digests=digests,
        manifest={"environment": environment()},
        version=__version__,
    )


def _types(facts: Mapping[str, Any]) -> list[Text]:
    """What was done, in words; of what is the reference's in part, which parts."""
    found = []
    for name in facts["types"]:
        words = TYPES[name]
        if name == "partial" and facts["parts"]:
            words = t("{name}: {parts}", "{name}：{parts}", name=words, parts=_parts(facts))
        found.append(words)
    return found


def _part(facts: Mapping[str, Any]) -> Text:
    """What the two share, where it is not all."""
    if "partial" not in facts["types"] or not facts["parts"]:
        return t("", "")
    return t(
        "What they share is only a part: {parts}.",
        "两者共有的只是一部分：{parts}。",
        parts=_parts(facts),
    )


def _parts(facts: Mapping[str, Any]) -> Text:
    return reduce(lambda a, b: t("{a}, {b}", "{a}、{b}", a=a, b=b), [PARTS[name] for name in facts["parts"]])


def _blocks(facts: Mapping[str, Any], test: Mapping[str, Any]) -> Markup:
    """Which block came from which; of a mixture, which expert from which block."""
    name = t("block of the suspect", "被审模型的层")
    if "experts upcycled" in facts["types"]:
        name = t("expert of the suspect, block after block", "被审模型的专家（逐层排列）")
    return block_map(test["layer_map"], test["z_blocks"], max(test["layer_map"]) + 1, name)


def _sentence(facts: Mapping[str, Any], order: Mapping[str, Any]) -> Text:
    """What it comes to, in a sentence or two."""
    # What answers behind an address is called as it is called there.
    names = {"b": facts["suspect"], "a": facts["reference"]}
    names = {key: code(party.get("model", party["name"])) for key, party in names.items()}
    if facts["verdict"] in ("PROVEN", "SHARED START"):
        name = min(facts["p"], key=lambda key: facts["p"][key])
        return t(
            "{b} and {a} are <b>not independent</b>. If they had nothing to do with each other, a coincidence as large "
            "as this one ({test}) would occur less than once in {n} pairs of models.",
            "{b} 与 {a} <b>并非相互独立</b>。若两者毫无关系，如此程度的巧合（{test}）在每 {n} 对模型中不到一次。",
            **names,
            test=TESTS[name],
            n=integer(round(1 / _uncorrected(facts, order)[name])),
        )
    if facts["verdict"] == "STRONG" and not _units_beyond(facts):
        return behaviour_sentence(facts, names)
    if facts["verdict"] == "STRONG":
        return t(
            "Units of {a} are found again in {b} far beyond all {n} models known to be unrelated. No exact test shows "
            "it, so this is an indication and no proof.",
            "在 {b} 中重新找到的 {a} 的单元，远多于全部 {n} 个已知无关的模型。"
            "但没有精确检验予以证实，因此只是迹象，不是证明。",
            **names,
            n=integer(len(facts["control_clones"])),
        )
    if facts["verdict"] == "ABSTAIN":
        return t(
            "{b} and {a} cannot be held against each other, so nothing is said about them.",
            "{b} 与 {a} 无法相互比较，因此不作任何判断。",
            **names,
        )
    if not facts["content"]:
        return t(
            "Only answers of {b} and {a} are at hand, no weights of both. By these {b} is not so near to {a} that "
            "chance, or what unrelated models do, could be ruled out. A model that learnt other things afterwards, or "
            "for very long, may show nothing here.",
            "只有 {b} 与 {a} 的回答，没有双方的权重。从回答看，{b} 与 {a} 并未接近到足以排除偶然或无关模型的程度。"
            "之后又学了别的内容，或训练很久的模型，在此可能毫无痕迹。",
            **names,
        )
    if not facts["p"].keys() - {"content"}:
        return t(
            "No exact test could be made of {b} and {a} but that of bits: {s} of the suspect’s numbers are the same.",
            "{b} 与 {a} 除逐位比较外无法进行任何检验。被审模型有 {s} 的数值与参照模型逐位相同。",
            **names,
            s=percent(facts["content"]["rounded_share"]),
        )
    return t(
        "The tests found nothing by which {b} is nearer to {a} than chance. {seen} A model distilled from answers, or "
        "trained anew for very long, may show nothing here.",
        "检验没有发现 {b} 与 {a} 之间超出偶然的联系。{seen}"
        "通过答案蒸馏得到的模型，或重新训练很久的模型，在此可能毫无痕迹。",
        **names,
        seen=_would_be_seen(facts),
    )


def _would_be_seen(facts: Mapping[str, Any]) -> Text:
    """The weakest kinship that was found where it was planted."""
    found = [float(r) for power in facts["power"].values() for r, seen in power["planted"].items() if seen]
    if not found:
        return t("", "")
    return t(
        "Units that kept a correlation of {r} with the reference’s would have been found: planted in copies of it, "
        "they were.",
        "若单元与参照模型的单元还有 {r} 的相关，就会被发现：植入其副本时确实被发现了。",
        r=decimal(min(found), 2),
    )


def _uncorrected(facts: Mapping[str, Any], order: Mapping[str, Any]) -> dict[str, float]:
    """The p-value of every exact test by itself."""
    p: dict[str, float] = {f"order of {key}": test["p"] for key, test in order.items()}
    p |= {"content": facts["identity"]["p"]} if isinstance(facts["identity"], dict) else {}
    p |= {"seed": facts["seed"]["p"]} if isinstance(facts["seed"], dict) else {}
    p |= {"siblings": facts["sibling"]["p"]} if isinstance(facts["sibling"], dict) else {}
    behaved = facts.get("behaviour") or {}
    for key, by in (("data order", "data_order"), ("siblings by behaviour", "siblings")):
        p |= {key: behaved[by]["p"]} if isinstance(behaved.get(by), dict) else {}
    return p


def _wording(facts: Mapping[str, Any]) -> Text:
    """Who was first is another question."""
    if facts["verdict"] == "SHARED START":
        return t(
            "But {a} was trained from the seed {s}, which was told and not drawn: whoever trains the same make of "
            "model from it has the same start, without having copied anything. This is no proof of descent. A model "
            "trained without a seed in its recipe draws one that nobody else has.",
            "但 {a} 使用的是指定的种子 {s}，而不是随机抽取的：任何人用它训练同样结构的模型，"
            "都会有相同的起点，并不需要抄袭。因此这不能证明派生关系。配方中不写种子时，训练会抽取一个独一无二的种子。",
            a=code(facts["reference"]["name"]),
            s=code(facts["told_seed"]),
        )
    if facts["verdict"] not in ("PROVEN", "STRONG"):
        return t("", "")
    if "distilled" in facts["types"]:
        return t(
            "The weights show nothing of {a}: this is consistent with distillation, where a model is taught by the "
            "answers of another, and not with copied weights.",
            "权重中没有 {a} 的痕迹：这与蒸馏（用另一模型的回答来训练）相符，与复制权重不符。",
            a=code(facts["reference"]["name"]),
        )
    if isinstance(facts["seed"], dict) and facts["p"].get("seed", 1.0) <= facts["alpha"]:
        return t(
            "The suspect shows the random start that the reference’s record committed to before its first step: if the "
            "commitment is older than the suspect, the suspect was derived from this run.",
            "被审模型带有参照模型在训练第一步之前承诺过的随机起点：若承诺早于被审模型，则被审模型派生自该次训练。",
        )
    return t(
        "Which of the two was first, or whether both come from a third model or from one seed of one program, weights "
        "do not tell: that takes a record with a date.",
        "两者孰先孰后，或是否同出于第三个模型、同一程序的同一种子，权重本身无法说明：这需要带日期的训练记录。",
    )


def _units_beyond(facts: Mapping[str, Any]) -> bool:
    """Whether units are found again far beyond all unrelated models; otherwise behaviour is what is strong."""
    behaved = facts.get("behaviour") or {}
    return not behaved.get("beyond") or bool(
        facts["clones"]
        and len(facts["control_clones"]) > 1
        and facts["clones"]["share"]
        > max(facts["control_clones"]) + max(0.1, 5 * statistics.stdev(facts["control_clones"]))
    )


def _likeness(facts: Mapping[str, Any]) -> list[tuple[Text, str, str]]:
    """What proves nothing: its name, the suspect's, and the range of the unrelated models."""
    named = {
        "gain_cosine": t("cosine of norm gains", "归一化增益的余弦"),
        "gain_correlation": t("correlation of norm gains", "归一化增益的相关系数"),
        "spread_curves": t("correlation of spreads over layers", "各层权重离散度曲线的相关系数"),
        "same_config": t("architecture: sizes and kinds of parts that agree", "架构：相同的尺寸与部件种类"),
        "tokens": t("tokens in common", "共有词元"),
    }
    rows = []
    for key, name in named.items():
        write = percent if key in ("same_config", "tokens") else decimal
        others = [each[key] for each in facts["control_likeness"] if each[key] is not None]
        span = f"{write(min(others))} – {write(max(others))}" if others else "–"
        value = facts["likeness"][key]
        rows.append((name, "–" if value is None else write(value), span))
    return rows


def _why_no_proof(likeness: Mapping[str, Any]) -> list[Text]:
    """Why what is alike here is alike in models that have nothing to do with each other."""
    notes = []
    if (likeness["gain_cosine"] or 0.0) > _LOOKS_ALIKE:
        notes.append(
            t(
                "<b>Norm gains</b> begin at 1 in nearly every model and stay near it, so that the cosine of two "
                "models’ gains is near 1 whoever made them. A model was once called a copy for a cosine of 0.989; "
                "its accuser took that back.",
                "<b>归一化增益</b>在几乎所有模型中都从 1 开始，并停留在 1 附近，"
                "因此无论由谁训练，两个模型增益的余弦都接近 1。曾有模型因余弦 0.989 被指抄袭，指控者后来收回了指控。",
            )
        )
    if (likeness["spread_curves"] or 0.0) > _LOOKS_ALIKE:
        notes.append(
            t(
                "<b>How the spread of weights changes from layer to layer</b> follows from architecture and recipe; "
                "models trained independently reach a correlation of 0.9.",
                "<b>权重离散度随层的变化</b>取决于架构与训练配方；独立训练的模型也可达到 0.9 的相关。",
            )
        )
    if likeness["same_config"] == 1.0:
        notes.append(
            t(
                "<b>The architecture is the same</b> in all sizes and kinds of parts that were compared. Architectures "
                "are published to be used; whether weights were taken is another question: that of the tests above.",
                "<b>架构相同</b>：所比较的尺寸与部件种类全部一致。架构公开就是供人使用的；"
                "权重是否被取用是另一个问题，由上面的检验回答。",
            )
        )
    return notes
