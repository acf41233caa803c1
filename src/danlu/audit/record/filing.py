"""The draft of an annex for a filing (备案) in China, read off a statement: facts for the person who files to check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from danlu.audit.record.statement import Stated

__all__ = ["filing_annex"]

_HEAD = """\
# 备案附件草稿：模型与训练语料说明

> **草稿，不构成法律意见。** 本文由 danlu 根据同目录下的 `statement.dsse.json` 自动生成，仅供填报人核对；是否需要备案、
> 登记，如何填报，以主管部门的要求和法律顾问的意见为准。标注“由填报人填写”的项目，danlu 无从得知。
>
> *Draft, no legal advice: generated from the signed statement beside it, for the person who files to check.*
"""
_BY_HAND = "由填报人填写"
_RELATIONS = {
    "fine-tuned from": "在其权重上微调",
    "fine-tuned from, by LoRA, folded in": "在其权重上以 LoRA 微调，增量已并入权重",
    "pre-trained": "本机预训练所得，继续训练",
    "combined": "作为成员，合并其回答",
}


_WORDS = {
    "learnt from the training texts": "从训练文本学得",
    "that of the checkpoint it starts from": "沿用上级模型的分词器",
    "none": "无",
    "public sample": "公开样本",
    "the user's own, not stated further": f"使用单位自有，未进一步说明（{_BY_HAND}）",
    "another dataset": "取自另一数据集",
}
"""What a statement says in words of danlu's own."""


def filing_annex(stated: Stated) -> str:
    """The annex in Markdown; the same statement gives the same text.

    Raises:
        CorruptError: The statement lacks what is to be told.
    """
    parts = [_HEAD, _about(stated), _origin(stated), _data(stated), _training(stated), _judged(stated), _proof(stated)]
    return "\n".join(parts)


def _about(stated: Stated) -> str:
    model, finished = stated.fact("model"), stated.at("predicate", "runDetails", "metadata", "finishedOn")
    rows = {
        "模型名称": stated.fact("artifact", "name"),
        "模型摘要值": f"`{stated.fact('artifact', 'digest')}`",
        "任务": model["task"],
        "结构": model["family"],
        "参数量": f"{model['n_parameters']:,}" if model["n_parameters"] is not None else "未记录",
        "完成时间": f"{finished}（本机时钟，未经第三方时间戳证明）",
        "服务名称、服务方式、面向对象": _BY_HAND,
    }
    return _section("一、模型基本情况", _table(("项目", "内容"), rows.items()))


def _origin(stated: Stated) -> str:
    lineage = stated.fact("lineage")
    claim = (
        "自行训练：权重随机初始化，未使用其他模型的权重" if lineage["from_scratch"] else "使用了其他模型的权重，见下表"
    )
    rows = [
        (
            parent["name"],
            _RELATIONS.get(parent["relation"], parent["relation"]),
            parent["licence"] or f"未记录（{_BY_HAND}）",
            f"`{parent['digest']}`",
        )
        for parent in lineage["parents"]
    ]
    parents = _table(("上级模型", "关系", "许可证", "摘要值"), rows) if rows else "无上级模型。"
    origin = lineage["tokenizer"]["origin"]
    tokenizer = _WORDS.get(origin, origin)
    teachers = "、".join(lineage["teachers"]["models"]) or "未登记任何教师模型"
    return _section(
        "二、模型来源",
        f"- 结论：{claim}\n- 分词器：{tokenizer}\n- 教师模型（蒸馏）：{teachers}；"
        f"源语料中是否含有其他模型生成的内容，danlu 无从得知（{_BY_HAND}）\n"
        f"- 是否以已备案模型为基座：{_BY_HAND}\n\n{parents}",
    )


def _data(stated: Stated) -> str:
    parts = []
    for data in stated.fact("data"):
        if "records" not in data:
            parts.append(f"数据集 `{data['digest']}`：写记录时不在本机，未能列出。\n")
            continue
        rows = [
            (
                source["name"],
                _WORDS.get(source["class"], source["class"]),
                source["licence"] or f"未记录（{_BY_HAND}）",
                _number(source["records"]),
                _number(source["bytes"]),
                f"`{source['value']}`",
            )
            for source in data["sources"]
        ]
        records = data["records"]
        dropped = "、".join(f"{reason} {n:,}" for reason, n in records["dropped"].items()) or "无"
        rules = "，".join(f"{key}={value}" for key, value in data["cleaning"].items())
        parts.append(
            f"### {data['name']}（{data['role']}）\n\n"
            f"- 读入 {records['read']:,} 条，保留 {records['kept']:,} 条；剔除：{dropped}\n"
            f"- 划分：{'，'.join(f'{name} {n:,}' for name, n in records['splits'].items())}\n"
            f"- 个人信息处理方式：{data['cleaning'].get('pii', '不适用')}\n"
            f"- 清洗规则（danlu {data['version']}）：{rules}\n"
            f"- 语料默克尔根：`{data['merkle_root']}`\n\n"
            + _table(("来源文件", "来源类别", "许可证", "保留条数", "字节数", "SHA-256"), rows)
            + "\n"
        )
    parts.append(f"\n- 境外语料占比、语种构成、采集方式与授权文件：{_BY_HAND}\n- 标注规则与标注人员：{_BY_HAND}")
    return _section("三、训练语料", "\n".join(parts))


def _training(stated: Stated) -> str:
    made, chain = stated.fact("environment", "at_the_end"), stated.fact("chain")
    told = stated.fact("model", "seconds")
    lines = [
        f"- 训练用时：{told:,.1f} 秒" if told is not None else "- 训练用时：未记录",
        f"- 软件：{'，'.join(f'{name} {version}' for name, version in made.items())}",
        f"- 代码：danlu {stated.fact('code', 'version')}，提交 {stated.fact('code', 'commit') or '未知'}，"
        f"文件摘要 `{stated.fact('code', 'sha256')}`",
        f"- 训练前的随机性承诺：{'已作出' if stated.fact('commitments') else '不适用'}",
        f"- 训练过程哈希链：{chain['lines']} 行，末端 `{chain['head']}`" if chain else "- 训练过程哈希链：不适用",
    ]
    return _section("四、训练过程", "\n".join(lines))


def _judged(stated: Stated) -> str:
    rows = [
        (name, f"{metric['value']:.4f}", f"{metric['low']:.4f} 至 {metric['high']:.4f}", f"{metric['n']:,}")
        for evaluation in stated.fact("evaluations")
        for name, metric in evaluation["metrics"].items()
        if metric["value"] is not None and metric["low"] is not None
    ]
    told = _table(("指标", "数值", "区间", "样本数"), rows) if rows else "写记录时尚无评测；其后的评测各有自己的声明。"
    return _section("五、评测", f"{told}\n\n- 安全评估（生成内容安全、拒答率等）：danlu 不做，{_BY_HAND}")


def _proof(stated: Stated) -> str:
    digest = stated.fact("artifact", "digest")
    return _section(
        "六、核验方法",
        f"在模型目录上运行 `danlu verify`，逐项给出“已核验、仅声明、缺失、不符”。模型摘要值 `{digest[:12]}`。\n"
        "签名只证明由谁作出上述声明，不证明声明属实。",
    )


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}\n"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def _number(value: int | None) -> str:
    return "未记录" if value is None else f"{value:,}"
