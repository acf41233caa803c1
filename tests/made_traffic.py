"""A model with its data, and requests to it as the server writes them down, at times and in numbers of one's choice."""

from __future__ import annotations

import base64
import copy
import io
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from danlu.core.artifact import Artifact
from danlu.core.progress import Silent
from danlu.core.workspace import Workspace
from danlu.data.stage import DataConfig, build_dataset
from danlu.model.base import Task
from danlu.model.predictor import Predictor
from made_serving import made_predictor
from small import made_up, translated, write_csv, write_pictures

__all__ = ["SINCE", "Traffic", "fresh_texts", "other_texts", "pictures", "traditional", "with_typos"]

SINCE = 1_790_000_000.0
"""When the first request came."""
_TRADITIONAL = str.maketrans("爱优坏脏贵个这买没来说", "愛優壞髒貴個這買沒來說")
_ODD = "鑫淼焱垚鱻羴骉犇"


class Traffic:
    """A model in a workspace, its name's champion, and the requests that it answers.

    Args:
        folder: Where the workspace is made.
        task: Of the model.
        n: Records of its data; eight in ten are its test split.
        predictor: The model; None: a tiny neural one.
    """

    def __init__(
        self,
        folder: Path,
        task: Task = "text-classification",
        n: int = 1150,
        predictor: Predictor | None = None,
    ) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "workspace")
        self.predictor: Predictor = predictor or made_predictor(task)
        self.model = self._model(task, n)
        self.now = SINCE
        self.n = 0

    def copied(self, folder: Path) -> Traffic:
        """The same model in a workspace of its own, and nothing asked yet."""
        found = copy.copy(self)
        found.folder, found.workspace = folder, Workspace(folder / "workspace")
        shutil.copytree(self.workspace.root, found.workspace.root)
        return found

    def _model(self, task: Task, n: int) -> Artifact:
        columns = {"text": "text", "label": "label"}
        if task == "image-classification":
            write_pictures(self.folder, n)
            source, columns = "pictures-*", {"image": "image", "label": "label"}
        elif task == "translation":
            source, columns = "texts.csv", {"text": "text", "target": "label"}
            write_csv(self.folder / source, [(text, translated(text)) for text, _ in made_up(n)])
        else:
            source = "texts.csv"
            write_csv(self.folder / source, made_up(n))
        config = DataConfig(source=source, columns=columns, split={"valid": 0.1, "test": 0.8})
        dataset = build_dataset(self.workspace, "tiny", config, self.folder, Silent())
        with self.workspace.create("model", "tiny", key="1", config={}, parents={"dataset": dataset.digest}) as draft:
            self.predictor.save(draft.folder)
        self.workspace.ledger.set_alias("tiny", "champion", draft.artifact, reason="the only one")
        return draft.artifact

    def ask(self, inputs: Sequence[str], /, *, seconds: float = 0.01, seed: int = 0, **changes: Any) -> None:
        """So many requests of one input each, a second apart, answered as the model does."""
        draw = random.Random(seed)
        answers: list[dict[str, Any]] = [{} for _ in inputs]
        if names := self.predictor.classes:
            pictured = self.predictor.task == "image-classification"
            rows = self._seen(inputs) if pictured else self.predictor.predict_proba(inputs)
            answers = [{"label": names[int(row.argmax())], "probability": round(float(row.max()), 6)} for row in rows]
        self.write(
            [
                {
                    "route": "/predict",
                    "status": 200,
                    "seconds": round(seconds * draw.lognormvariate(0, 0.2), 6),
                    "inputs": [each],
                    "answers": [answer],
                    **changes,
                }
                for each, answer in zip(inputs, answers, strict=True)
            ]
        )

    def _seen(self, inputs: Sequence[str]) -> np.ndarray:
        images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in inputs]
        return self.predictor.image_proba(np.stack(images)[:, None])

    def write(self, events: Sequence[dict[str, Any]]) -> None:
        """Requests as they are, with their ids, times and model."""
        path = self.workspace.events / "serve-made-up.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for event in events:
                self.n += 1
                self.now += 1.0
                head = {"time": self.now, "event": "request", "id": f"r{self.n}", "name": "tiny", "model": "tiny"}
                file.write(json.dumps({**head, "digest": self.model.digest, **event}, ensure_ascii=False) + "\n")


def pictures(n: int, seed: int, shade: int = 0) -> list[str]:
    """Pictures of the kind that the model was tested on, or darker ones, as a request holds them."""
    draw = np.random.default_rng(seed)
    found = []
    for side in draw.integers(0, 2, n).tolist():
        image = draw.integers(0, 100, (14, 14), dtype=np.uint8)
        image[:, 7 * side : 7 * side + 7] += 120
        file = io.BytesIO()
        Image.fromarray((image // (1 + shade)).astype(np.uint8)).save(file, "PNG")
        found.append(base64.b64encode(file.getvalue()).decode())
    return found


def fresh_texts(n: int, seed: int, n_chars: tuple[int, int] = (8, 28)) -> list[str]:
    """Texts of the kind that the model was tested on, which it has never seen."""
    found = [text for text, _ in made_up(n, 1000 + seed, n_chars)]
    random.Random(seed).shuffle(found)
    return found


def other_texts(n: int, seed: int) -> list[str]:
    """Texts of another domain: longer, and in other characters."""
    draw = random.Random(seed)
    return ["".join(draw.choices("股市涨跌基金银行利率央宣布今年增长亿元", k=draw.randint(30, 60))) for _ in range(n)]


def traditional(texts: Sequence[str]) -> list[str]:
    """The same in traditional characters."""
    return [text.translate(_TRADITIONAL) for text in texts]


def with_typos(texts: Sequence[str], share: float, seed: int) -> list[str]:
    """The same with some characters replaced by others that look like nothing."""
    draw = random.Random(seed)
    return ["".join(draw.choice(_ODD) if draw.random() < share else letter for letter in text) for text in texts]
