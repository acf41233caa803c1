"""A run of each task, from made-up records to the report's artifacts."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from danlu.core.workspace import Workspace
from danlu.data.image_sources import Picture
from danlu.evaluate.language import LanguageWriter
from danlu.evaluate.predictions import PredictionWriter
from danlu.evaluate.translation import TranslationWriter
from made_runs import Made, Run, make_dataset, make_pictures, make_run, read_test

HOSTILE = "<script>alert('x')</script> | `tick` & \"quote\" </style> *bold* [a](http://evil.example)"


def simulated_classes(
    labels: np.ndarray, n_classes: int, family: str, skill: float, confusable: bool = False
) -> np.ndarray:
    """Probabilities of a classifier: float32 [B, N]. The same noise for all families: real models err alike."""
    logits = np.random.default_rng(5).normal(0, 1.2, (len(labels), n_classes))
    logits += np.random.default_rng(len(family)).normal(0, 0.6, logits.shape)
    logits[np.arange(len(labels)), labels] += skill
    if confusable:  # 4 is like 9, 3 like 5, 7 like 1
        for one, other in ((4, 9), (3, 5), (7, 1)):
            logits[labels == one, other] += 0.5 * skill
            logits[labels == other, one] += 0.3 * skill
    odds = np.exp(1.6 * logits)
    probabilities: np.ndarray = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    return probabilities


def with_texts(rows: list[dict[str, Any]]) -> Callable[[dict[str, Any], str], None]:
    """Puts the text beside every example, as the evaluate stage does."""
    texts = {row["id"]: row["text"] for row in rows}

    def change(facts: dict[str, Any], _family: str) -> None:
        for example in examples(facts):
            example["text"] = texts[example["id"]]

    return change


def with_pictures(rows: list[dict[str, Any]], size: tuple[int, int]) -> Callable[[dict[str, Any], str], None]:
    """Puts the picture beside every example, and takes away what a picture has not."""
    images = {row["id"]: row["image"] for row in rows}

    def change(facts: dict[str, Any], _family: str) -> None:
        facts.pop("slices", None)
        for example in examples(facts):
            file = io.BytesIO()
            Image.frombytes("L", size, images[example["id"]]).save(file, "PNG")
            example["image"] = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
            del example["n_chars"]

    return change


def examples(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every record that is shown as an example."""
    groups = [group for group in facts.values() if isinstance(group, list)]
    return [example for group in groups for example in group if isinstance(example, dict) and "id" in example]


def text_run(
    root: Path,
    *,
    families: Sequence[str] = ("bert", "tfidf-lr", "gru"),
    classes: Sequence[str] = ("负面", "正面"),
    skills: Sequence[float] = (3.4, 2.4, 2.7, 2.2),
    planned: bool = True,
    records: tuple[list[str], list[str]] | None = None,
    **more: Any,
) -> Run:
    """Classification of texts."""
    workspace, names = Workspace(root / "danlu-workspace"), sorted(classes)
    texts, labels = records or make_texts(600, names)
    dataset = make_dataset(workspace, "reviews", {"text": texts, "label": labels})

    def answer(path: Path, rows: list[dict[str, Any]], family: str, skill: float) -> None:
        found = np.array([names.index(row["label"]) for row in rows])
        n_chars = np.array([len(row["text"]) for row in rows])
        with PredictionWriter(path, names) as writer:
            probabilities = simulated_classes(found, len(names), family, skill)
            writer.write([row["id"] for row in rows], found, probabilities, n_chars, 0.5 + n_chars / 60)

    rows = read_test(dataset)
    made = Made(
        task="text-classification",
        dataset=dataset,
        rows=rows,
        answer=answer,
        valid=lambda score, loss: {"score": score, "accuracy": score + 0.002, "loss": loss},
        classes=names,
        change=with_texts(rows),
        **more,
    )
    return make_run(workspace, made, families, skills, planned=planned)


def make_texts(n: int, classes: Sequence[str]) -> tuple[list[str], list[str]]:
    """Texts of varied length, some of them hostile, empty, repeated or with personal data."""
    rng = np.random.default_rng(3)
    characters = list(
        "质量很好差退货了快递慢服务态度一般值得推荐便宜屏幕电池声音包装破损房间干净早餐位置书内容翻译印刷"
    )
    texts = ["".join(rng.choice(characters, size=int(size))) for size in 6 + rng.gamma(1.5, 25, n).astype(int)]
    texts[:6] = [HOSTILE, "", "，，，。。。！！！", texts[7], "联系我 13812345678 或者 a@b.cn，谢谢", texts[9]]
    texts[11] = HOSTILE
    return texts, [classes[index] for index in rng.integers(len(classes), size=n)]


def digits() -> Iterator[Picture]:
    """Handwritten digits of 16 by 16 pixels, a few of them repeated, broken, of another size or with two labels."""
    found = load_digits()
    for index, (pixels, label) in enumerate(zip(found.images[:700], found.target[:700], strict=True)):
        shown = np.kron(pixels * 15.9, np.ones((2, 2))).astype(np.uint8)[None]
        yield Picture(f"digits/{label}/{index}.png", (str(label),), shown, None)
        if index < 3:
            yield Picture(f"digits/{label}/{index}-again.png", (str(label),), shown, None)
        if index == 5:
            yield Picture(f"digits/0/{index}.png", ("0",), shown, None)
    yield Picture("digits/0/broken.png", ("0",), None, "the picture cannot be read: no format known here")
    yield Picture("digits/1/small.png", ("1",), np.zeros((1, 8, 8), np.uint8), None)


def image_run(
    root: Path,
    *,
    families: Sequence[str] = ("cnn", "logistic-regression", "mlp"),
    skills: Sequence[float] = (5.4, 3.6, 4.4),
    pictures: Callable[[], Iterator[Picture]] = digits,
    **more: Any,
) -> Run:
    """Classification of pictures."""
    workspace = Workspace(root / "danlu-workspace")
    dataset = make_pictures(workspace, pictures())
    rows = read_test(dataset)
    names = sorted({row["label"] for row in rows})
    _, height, width = dataset.json("summary.json")["image_size"]

    def answer(path: Path, rows: list[dict[str, Any]], family: str, skill: float) -> None:
        labels = np.array([names.index(row["label"]) for row in rows])
        with PredictionWriter(path, names) as writer:
            probabilities = simulated_classes(labels, len(names), family, skill, confusable=True)
            nothing = np.zeros(len(rows), np.int64)
            writer.write([row["id"] for row in rows], labels, probabilities, nothing, np.full(len(rows), 0.11))

    made = Made(
        task="image-classification",
        dataset=dataset,
        rows=rows,
        answer=answer,
        valid=lambda score, loss: {"score": score, "accuracy": score + 0.002, "loss": loss},
        classes=names,
        change=with_pictures(rows, (width, height)),
        **more,
    )
    return make_run(workspace, made, families, skills)


VERSES = (
    "山空松子落",
    "明月照高楼",
    "春风又绿江南岸",
    "孤舟一夜听秋雨",
    "白云深处有人家",
    "烟波万里一扁舟",
    "落日故人情",
)
ENDS = ("，", "。", "？", "！")


def poems(n: int) -> list[str]:
    """Verses put together anew, a few of them hostile or in no language."""
    rng = np.random.default_rng(2)
    characters = sorted(set("".join(VERSES)))
    found = []
    for _ in range(n):
        lines = []
        for line in range(int(rng.choice([2, 4, 4, 8]))):
            verse = list(VERSES[rng.integers(len(VERSES))])
            for at in rng.integers(len(verse), size=3):
                verse[at] = str(rng.choice(characters))
            lines.append("".join(verse) + ENDS[line % 2])
        found.append("\n".join("".join(lines[at : at + 2]) for at in range(0, len(lines), 2)))
    found[4] = HOSTILE
    return found


def language_run(
    root: Path,
    *,
    families: Sequence[str] = ("gpt", "5-gram", "gru"),
    skills: Sequence[float] = (0.30, 0.0, 0.12),
    sampled: bool = True,
    texts: Sequence[str] = (),
    **more: Any,
) -> Run:
    """Language modelling; ``skill`` is how many bits of about 6 a character a model saves."""
    workspace = Workspace(root / "danlu-workspace")
    dataset = make_dataset(workspace, "poetry", {"text": list(texts or poems(500))})
    rows = read_test(dataset)
    add_texts = with_texts(rows)

    def answer(path: Path, rows: list[dict[str, Any]], family: str, skill: float) -> None:
        n_chars = np.array([len(row["text"]) for row in rows])
        strange = np.array([3.0 if "script" in row["text"] else 0.0 for row in rows])
        hard = np.random.default_rng(5).normal(6.0, 0.6, len(rows)) + 6 / n_chars + strange
        bits = hard - skill + np.random.default_rng(len(family)).normal(0, 0.25, len(rows))
        n_tokens = n_chars + 1 if family in ("5-gram", "gru") else (n_chars + 1) // 2 + 1
        with LanguageWriter(path) as writer:
            ids = [row["id"] for row in rows]
            writer.write(ids, bits * n_chars * np.log(2), n_chars, n_tokens, 0.4 + n_chars / 50)

    def change(facts: dict[str, Any], family: str) -> None:
        add_texts(facts, family)
        if sampled and "hardest" in facts and family in ("gpt", "5-gram"):
            whole = [row["text"] for row in rows if "script" not in row["text"]][:3]
            facts["samples"] = [
                {"prompt": text[:5], "continuation": other[5:], "true": text[5:]}
                for text, other in zip(whole, reversed(whole), strict=True)
            ]

    made = Made(
        task="language-modelling",
        dataset=dataset,
        rows=rows,
        answer=answer,
        valid=lambda score, _loss: {"score": -6.9 + 1.1 * score, "bits_per_character": 6.9 - 1.1 * score},
        change=change,
        **more,
    )
    return make_run(workspace, made, families, skills)


VERBS = (
    ("Delete", "删除"),
    ("Open", "打开"),
    ("Save", "保存"),
    ("Rename", "重命名"),
    ("Copy", "复制"),
    ("Print", "打印"),
)
NOUNS = (("the file", "文件"), ("all cells", "所有单元格"), ("this page", "此页面"), ("the selected user", "所选用户"))
MARKS = (
    ("", ""),
    (" %(name)s", "%(name)s"),
    (" {0}", "{0}"),
    (" in <b>bold</b>", "（<b>粗体</b>）"),
    (" &Now", "(&N)"),
)
PLACES = (("", ""), (" in the current workspace", "（当前工作区）"), (" on the server", "（服务器上）"), ("...", "…"))


def pairs() -> tuple[list[str], list[str]]:
    """Texts of a program and their translations; one source has two of them, one is hostile."""
    found = [
        (f"{verb[0]} {noun[0]}{mark[0]}{place[0]}", f"{verb[1]}{noun[1]}{mark[1]}{place[1]}")
        for verb in VERBS
        for noun in NOUNS
        for mark in MARKS
        for place in PLACES
    ]
    found += [(found[0][0], "移除文件"), found[0], (HOSTILE, HOSTILE + "了"), ("API", "API"), ("x", "")]
    return [source for source, _ in found], [target for _, target in found]


def translation_run(
    root: Path,
    *,
    families: Sequence[str] = ("transformer", "translation-memory"),
    skills: Sequence[float] = (0.8, 0.5),
    texts: tuple[list[str], list[str]] | None = None,
    **more: Any,
) -> Run:
    """Translation; ``skill`` is the share of characters that a model gets right."""
    workspace = Workspace(root / "danlu-workspace")
    sources, targets = texts or pairs()
    columns = {"text": sources, "target": targets}
    dataset = make_dataset(workspace, "interface", columns, dedup="exact")

    def answer(path: Path, rows: list[dict[str, Any]], family: str, skill: float) -> None:
        rng = np.random.default_rng(len(family))
        hypotheses = []
        for row in rows:
            lucky = rng.random() < skill
            kept = [letter for letter in row["target"] if lucky or rng.random() < skill + 0.1]
            hypotheses.append("".join(kept))
        with TranslationWriter(path) as writer:
            ids, sources, references = ([row[name] for row in rows] for name in ("id", "text", "target"))
            writer.write(ids, sources, references, hypotheses, np.full(len(rows), 8.5))

    made = Made(
        task="translation",
        dataset=dataset,
        rows=read_test(dataset),
        answer=answer,
        valid=lambda _score, loss: {"score": -loss, "loss": loss},
        **more,
    )
    return make_run(workspace, made, families, skills)


RUNS: dict[str, Callable[..., Run]] = {
    "text-classification": text_run,
    "image-classification": image_run,
    "language-modelling": language_run,
    "translation": translation_run,
}
