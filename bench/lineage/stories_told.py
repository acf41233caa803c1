"""The accusations that are told again: what was said, what stands for it here, and what an audit ought to say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from danlu.report.words import Text, t
from stories_models import CONTROLS, SIBLINGS, StoryShop, publish, with_run

__all__ = ["STORIES", "Story"]

_OTHERS = "controls=controls"
_NOTHING = ("NO EVIDENCE", "CONTEXT ONLY")


@dataclass(frozen=True, kw_only=True)
class Story:
    """An accusation.

    Attributes:
        title: Whom it was about, and when.
        said: The accusation, and what came of it.
        enacted: What stands for it here.
        lay_out: Writes the folders that the audit is given; the folder is empty.
        words: What ``danlu audit suspect against=reference`` is told besides.
        verdicts: What it may say,
        types: what was done, as it must say; nothing: no type is named,
        part: and which part was taken, where it is one.
        behind: The model that an endpoint serves; empty: the suspect is a folder.
    """

    title: Text
    said: Text
    enacted: Text
    lay_out: Callable[[StoryShop, Path], None]
    words: tuple[str, ...] = (_OTHERS,)
    verdicts: tuple[str, ...] = ("PROVEN",)
    types: tuple[str, ...] = ()
    part: str = ""
    behind: str = ""


def _publish(shop: StoryShop, name: str, folder: Path) -> None:
    publish(shop.module(name), shop.tokenizer(name), folder)


def _beside(shop: StoryShop, folder: Path) -> None:
    """The reference as it was published, and unrelated models."""
    _publish(shop, "reference", folder / "reference")
    _controls(shop, folder)


def _controls(shop: StoryShop, folder: Path) -> None:
    (folder / "controls").mkdir()
    for name in CONTROLS:
        _publish(shop, name, folder / "controls" / name)


def _siblings(shop: StoryShop, folder: Path, names: tuple[str, ...]) -> None:
    (folder / "siblings").mkdir()
    for name in names:
        _publish(shop, name, folder / "siblings" / name)


def _two_names(shop: StoryShop, folder: Path) -> None:
    _beside(shop, folder)
    names = {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"}
    about = {"architectures": ["OtherForCausalLM"], "model_type": "other"}
    publish(shop.module("independent"), shop.tokenizer("independent"), folder / "suspect", names, about)


def _noise(shop: StoryShop, folder: Path) -> None:
    _beside(shop, folder)
    names = {
        "model.layers": "decoder.stack",
        "input_layernorm": "ln1",
        "post_attention_layernorm": "ln2",
        "self_attn": "mixer",
        "mlp": "expander",
    }
    about = {"architectures": ["OwnVisionForCausalLM"], "model_type": "own_vision"}
    publish(shop.module("noised"), shop.tokenizer("noised"), folder / "suspect", names, about)


def _alike(shop: StoryShop, folder: Path) -> None:
    _beside(shop, folder)
    _publish(shop, "independent", folder / "suspect")


def _alike_in_spread(shop: StoryShop, folder: Path) -> None:
    _beside(shop, folder)
    _publish(shop, "spread", folder / "suspect")


def _component(shop: StoryShop, folder: Path) -> None:
    _beside(shop, folder)
    _publish(shop, "transplanted-tuned", folder / "suspect")


def _experts(shop: StoryShop, folder: Path) -> None:
    _beside(shop, folder)
    (folder / "suspect").symlink_to(shop.path("experts"))


def _leak(shop: StoryShop, folder: Path) -> None:
    with_run(shop, "reference", folder / "reference", folder / "danlu-workspace", data=False)
    _controls(shop, folder)
    _publish(shop, "quantised", folder / "suspect")


def _answers_alone(shop: StoryShop, folder: Path) -> None:
    with_run(shop, "reference", folder / "reference", folder / "danlu-workspace", data=True)
    _controls(shop, folder)
    _siblings(shop, folder, SIBLINGS)


def _sibling(shop: StoryShop, folder: Path) -> None:
    _beside(shop, folder)
    suspect, *others = SIBLINGS
    _publish(shop, suspect, folder / "suspect")
    _siblings(shop, folder, tuple(others))


STORIES: dict[str, Story] = {
    "two-renamed-tensors": Story(
        title=t("Yi and Llama, November 2023", "Yi 与 Llama，2023 年 11 月"),
        said=t(
            "The architecture was Llama’s, with two tensors renamed. The vendor renamed them back; nobody has shown "
            "that weights were taken.",
            "架构与 Llama 相同，只改了两个张量的名字。厂商随后改回；没有人证明权重被使用。",
        ),
        enacted=t(
            "A model of the same architecture, trained from a start, texts and a tokenizer of its own; two norms of "
            "every block renamed.",
            "架构相同，但起点、文本与分词器都是自己的模型；每层的两个归一化张量改了名。",
        ),
        lay_out=_two_names,
        verdicts=_NOTHING,
    ),
    "noise-on-the-weights": Story(
        title=t("Llama3-V and MiniCPM-Llama3-V 2.5, June 2024", "Llama3-V 与 MiniCPM-Llama3-V 2.5，2024 年 6 月"),
        said=t(
            "Code and config were MiniCPM’s with other names, and the weights looked like its own with noise added. "
            "The authors apologised and withdrew the model.",
            "代码与配置只是改了名字的 MiniCPM，权重像是其权重加上噪声。作者道歉并撤下了模型。",
        ),
        enacted=t(
            "The reference’s weights with Gaussian noise of a fifth of their spread on every matrix; all tensors of "
            "the blocks and the architecture renamed.",
            "参照模型的每个矩阵加上其标准差五分之一的高斯噪声；各层的张量与架构全部改名。",
        ),
        lay_out=_noise,
        types=("noise added",),
    ),
    "norm-gains-alike": Story(
        title=t("Solar-Open-100B and GLM-4.5-Air, December 2025", "Solar-Open-100B 与 GLM-4.5-Air，2025 年 12 月"),
        said=t(
            "The cosine of norm gains was 0.989. The vendor showed its training logs and checkpoints, and the accuser "
            "apologised.",
            "归一化增益的余弦为 0.989。厂商公开了训练日志与检查点，指控者道歉。",
        ),
        enacted=t(
            "A model trained from a start, texts and a tokenizer of its own. Its norm gains are near 1, as all are.",
            "起点、文本与分词器都是自己的模型。它的归一化增益接近 1，所有模型都是如此。",
        ),
        lay_out=_alike,
        verdicts=_NOTHING,
    ),
    "spread-curves-alike": Story(
        title=t("Pangu Pro MoE and Qwen2.5-14B, July 2025", "盘古 Pro MoE 与 Qwen2.5-14B，2025 年 7 月"),
        said=t(
            "How the spread of attention matrices changes from layer to layer was alike (r 0.927). The vendor denied "
            "it; unrelated models reach 0.91; it was never settled independently.",
            "各层注意力矩阵标准差的变化曲线相似（r 0.927）。厂商否认；无关的模型也可达 0.91；此事从未有独立结论。",
        ),
        enacted=t(
            "A model trained from a start, texts and a tokenizer of its own, its attention matrices scaled block by "
            "block so that their spreads follow the reference’s as closely as was said (r 0.927).",
            "起点、文本与分词器都是自己的模型；逐层缩放其注意力矩阵，使标准差曲线与参照模型相似到所说的程度"
            "（r 0.927）。",
        ),
        lay_out=_alike_in_spread,
        verdicts=_NOTHING,
    ),
    "a-component-taken": Story(
        title=t("HyperCLOVA X SEED 32B and Qwen2.5, December 2025", "HyperCLOVA X SEED 32B 与 Qwen2.5，2025 年 12 月"),
        said=t(
            "One component, the vision encoder, was another vendor’s (cosine 99.5%). That was admitted, and the "
            "component replaced.",
            "其中一个部件（视觉编码器）来自另一厂商（余弦 99.5%）。厂商承认并更换了该部件。",
        ),
        enacted=t(
            "The feed-forward parts of the reference in the body of another model, and all trained further together.",
            "把参照模型的前馈部分移植到另一个模型中，再一起继续训练。",
        ),
        lay_out=_component,
        types=("partial",),
        part="feed-forward",
    ),
    "made-into-experts": Story(
        title=t("A dense model made into experts", "稠密模型改造为专家混合模型"),
        said=t(
            "What was suspected of several mixtures of experts: that each expert began as a copy of one dense model.",
            "对若干专家混合模型的怀疑：每个专家最初都是同一个稠密模型的副本。",
        ),
        enacted=t(
            "Every feed-forward part of the reference four times behind a router, trained further so that the experts "
            "differ, in the layout of Mixtral.",
            "参照模型的每个前馈部分复制四份，置于路由器之后，继续训练使各专家不同，采用 Mixtral 的布局。",
        ),
        lay_out=_experts,
        types=("experts upcycled",),
    ),
    "quantised-leak": Story(
        title=t("Miqu-70B, January 2024", "Miqu-70B，2024 年 1 月"),
        said=t(
            "Quantised weights without a source appeared on the web. The vendor confirmed that they were an early "
            "model of its own, leaked.",
            "网上出现来源不明的量化权重。厂商确认那是其早期模型的泄露版本。",
        ),
        enacted=t(
            "The reference trained further on other texts, and rounded to four bits. Its owner audits, with the seeds "
            "that its run committed to.",
            "参照模型用其他文本继续训练，再舍入到 4 位。由其所有者审计，并持有训练时承诺过的种子。",
        ),
        lay_out=_leak,
        types=("quantised",),
    ),
    "behind-an-api": Story(
        title=t("Cursor Composer 2 and Kimi K2.5, March 2026", "Cursor Composer 2 与 Kimi K2.5，2026 年 3 月"),
        said=t(
            "A product answered through an API alone; what it was built on was not said. It was admitted within a day.",
            "产品只能通过 API 使用，未说明基于什么模型。次日厂商承认。",
        ),
        enacted=t(
            "The reference trained further on other texts, behind an endpoint on this machine. Its owner has the data "
            "and the seeds of its run, three siblings and four unrelated models. Answers show far less than weights, "
            "and a run of 150 steps leaves little to remember.",
            "参照模型用其他文本继续训练，只能通过本机接口访问。其所有者持有训练数据与种子、"
            "三个同胞模型和四个无关模型。回答所显示的远少于权重，150 步的训练也留不下多少记忆。",
        ),
        lay_out=_answers_alone,
        words=(_OTHERS, "siblings=siblings"),
        verdicts=("PROVEN", "STRONG"),  # not met so far: answers of a model this small show too little
        behind="fine-tuned",
    ),
    "a-sibling-accused": Story(
        title=t("A sibling accused", "被指控的同胞模型"),
        said=t(
            "Nobody’s story yet: same data, same recipe, same tokenizer, other seed. Answers and statistics are as "
            "alike as they can be without copying.",
            "尚无此案：数据、配方、分词器都相同，只有种子不同。回答与统计量相似到不抄袭所能达到的极限。",
        ),
        enacted=t(
            "Exactly that, beside two more siblings and four unrelated models.",
            "正是如此，另有两个同胞模型和四个无关模型作对照。",
        ),
        lay_out=_sibling,
        words=(_OTHERS, "siblings=siblings"),
        verdicts=_NOTHING,
    ),
}
"""Name of the page -> the story."""
