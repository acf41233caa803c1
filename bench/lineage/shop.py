"""Where the benchmark's models are made and kept.

    DIR/benchmark.json    the scale, the steps and the datasets
    DIR/bases/<base>/     a workspace each: the run with its seeds, and the model that it made
    DIR/artifacts/model/  what was derived from them
    DIR/answers/          what every model loses on the same texts and what it would say next: NAME.npz
    DIR/tokens/           what texts were cut into; may be deleted at any time

A model is there or not, so that building may be stopped at any time.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from tokenizers import Tokenizer
from torch.nn import functional as F

from danlu.core.artifact import Artifact
from danlu.core.batch import NOT_PREDICTED, Batch
from danlu.core.files import digest_of, read_json, write_atomic, write_json
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.batches import Tokens, shuffled
from danlu.data.sequences import Windows, collate_windows, windows
from danlu.data.token_store import TokenStore
from danlu.data.tokenizer import TokenizerConfig, encode, load_tokenizer, special_tokens, train_tokenizer
from danlu.model.base import Model, Signature
from danlu.model.families import FAMILIES
from danlu.model.gpt import Gpt
from danlu.model.module import build_module, load_module
from danlu.train.examples import load_texts
from danlu.train.language import LanguageConfig
from danlu.train.prepare import device
from dataset import open_datasets
from plan import SCALES, Item, Scale, items_of

__all__ = ["MAX_LEN", "Answers", "Shop"]

MAX_LEN = 128
"""Tokens of a text that a model sees."""
_AT_ONCE = 128
_N_PLACES = 4000
"""Places at which models are asked for the next token, by the tests of behaviour."""


@dataclass(frozen=True)
class Answers:
    """What a model answers to the texts that all are asked.

    Attributes:
        nats: float32 [n]; its loss on each training text, as far as a window reaches.
        says: int32 [m]; what it would say at each place of the validation texts, as a token of the first base's.
    """

    nats: np.ndarray
    says: np.ndarray


class Shop:
    """The benchmark's folder.

    Args:
        folder: Where everything is.
        scale: How large the benchmark is: a name of ``SCALES``.
        data: The folder of its datasets.
        steps: Steps that a base is trained for; None: what the scale says.
    """

    def __init__(self, folder: Path, scale: str, data: Path, steps: int | None = None) -> None:
        self.folder = folder.absolute()
        self.scale: Scale = SCALES[scale]
        self.steps = steps or self.scale.steps
        self.items: dict[str, Item] = {item.name: item for item in items_of(self.scale)}
        self.workspace = Workspace(self.folder)
        self.store = TokenStore(self.folder / "tokens")
        self.datasets: dict[str, Artifact] = open_datasets(data)
        self.told = {"scale": scale, "data": str(data.absolute()), "steps": self.steps}

    @classmethod
    def opened(cls, folder: Path) -> Shop:
        """A benchmark that was begun before."""
        path = folder / "benchmark.json"
        if not path.is_file():
            raise SystemExit(f"there is no benchmark in {folder}: run build.py first")
        told = read_json(path)
        return cls(folder, told["scale"], Path(told["data"]), told["steps"])

    def begin(self) -> None:
        """Write down what is built here, and refuse to build something else in the same folder."""
        digests = {name: artifact.digest for name, artifact in self.datasets.items()}
        told, path = {**self.told, "datasets": digests}, self.folder / "benchmark.json"
        if path.is_file():
            before = read_json(path)
            if wrong := [key for key in ("scale", "steps", "datasets") if before[key] != told[key]]:
                raise SystemExit(f"{self.folder} holds a benchmark of another {wrong[0]}: choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, told)

    def workspace_of(self, base: str) -> Workspace:
        """The workspace of a base's own."""
        workspace = Workspace(self.folder / "bases" / base)
        workspace.tokens = self.folder / "tokens"
        return workspace

    def find(self, name: str) -> Artifact | None:
        """A finished model, if it is there."""
        item = self.items[name]
        root = self.workspace_of(name).artifacts if item.how == "base" else self.workspace.artifacts
        for path in root.glob(f"model/{name}-????????????/manifest.json"):
            found = Artifact.open(path.parent, "model")
            if found.name == name:
                return found
        return None

    def path(self, name: str) -> Path:
        """The folder of a finished model."""
        found = self.find(name)
        if found is None:
            raise SystemExit(f"{name} is not built yet: run build.py first")
        return found.path

    def is_done(self, name: str) -> bool:
        """Whether a model and its answers are there."""
        return (self.folder / "answers" / f"{name}.npz").exists() and self.find(name) is not None

    def module(self, name: str) -> Gpt:
        """A finished model of ours, on the device."""
        module = load_module(self.path(name)).to(device()).eval()
        assert isinstance(module, Gpt)
        return module

    def tokenizer(self, name: str) -> Tokenizer:
        """A finished model's tokenizer."""
        return load_tokenizer(self.path(name) / "tokenizer.json")

    def seeds(self, base: str) -> Seeds:
        """The seeds that a base's run committed to."""
        (path,) = self.workspace_of(base).runs.glob("*/seeds.json")
        seeds = Seeds.load(path)
        found = self.find(base)
        assert found is not None
        assert seeds.commitments() == found.manifest["commitments"], "these are not the seeds of the record"
        return seeds

    def start(self, base: str) -> tuple[Model, Seeds]:
        """The make of a base without its weights, and its seeds: what the test of the seed asks for."""
        folder = self.path(base)
        signature = TypeAdapter(Signature).validate_python(read_json(folder / "signature.json"))
        with torch.device("meta"):
            stored = read_json(folder / "config.json")
            return build_module(FAMILIES[stored["family"]].Config(**stored), signature), self.seeds(base)

    @cache  # noqa: B019 - there is one shop a process
    def texts(self, data: str, split: str) -> list[str]:
        """The texts of a dataset."""
        return load_texts(self.datasets[data], split)  # type: ignore[arg-type]

    def cut(self, data: str, split: str, tokenizer: Tokenizer) -> Windows:
        """The texts of a dataset as a tokenizer cuts them, in windows that a model sees."""
        key = {"dataset": self.datasets[data].digest, "split": split, "tokenizer": digest_of(tokenizer.to_str())}
        made = self.store.arrays(key, lambda: vars(encode(tokenizer, self.texts(data, split), None, special=False)))
        return windows(Tokens(**made), special_tokens(tokenizer), MAX_LEN, 0)

    @cached_property
    def first_tokenizer(self) -> Tokenizer:
        """The tokenizer of the first base and its siblings."""
        config = TokenizerConfig(kind="char", vocab_size=self.scale.vocab_size)
        key = {"dataset": self.datasets["tang"].digest, "config": config.plain()}
        return self.store.tokenizer(key, lambda: train_tokenizer(self.texts("tang", "train"), config))

    @cached_property
    def asked(self) -> tuple[np.ndarray, np.ndarray]:
        """The windows of the training and the validation texts that all models are asked: their numbers."""
        found = []
        for split, n in (("train", self.scale.n_asked), ("valid", self.scale.n_asked // 8)):
            cut = self.cut("tang", split, self.first_tokenizer)
            _, first = np.unique(cut.texts, return_index=True)
            found.append(first[:n])
        return found[0], found[1]

    @cached_property
    def places(self) -> tuple[np.ndarray, list[str]]:
        """The places of the validation texts whose next token is asked for: their numbers, and what stands there."""
        cut, (_, rows) = self.cut("tang", "valid", self.first_tokenizer), self.asked
        targets = [
            cut.ids[start + 1 : start + 1 + n] for start, n in zip(cut.starts[rows], cut.lengths[rows], strict=True)
        ]
        true = np.concatenate(targets)
        places = np.sort(np.random.default_rng(0).permutation(len(true))[:_N_PLACES])
        return places, self.spelt(true[places])

    def spelt(self, tokens: np.ndarray) -> list[str]:
        """Tokens of the first base as text; one that stands for no character ends a text, as far as tests go."""
        known = {number: token for token, number in self.first_tokenizer.get_vocab().items() if len(token) == 1}
        return [known.get(number, "") for number in tokens.tolist()]

    def answers(self, name: str) -> Answers:
        """What a finished model answers."""
        with np.load(self.folder / "answers" / f"{name}.npz", allow_pickle=False) as stored:
            return Answers(stored["nats"], stored["says"])

    def keep_answers(self, name: str, module: Gpt, tokenizer: Tokenizer) -> None:
        """Ask a model, and keep what it answers."""
        train, valid = self.asked
        nats, _ = self._ask("train", train, module, tokenizer)
        _, says = self._ask("valid", valid, module, tokenizer)
        content = io.BytesIO()
        np.savez(content, nats=nats, says=says)
        (self.folder / "answers").mkdir(parents=True, exist_ok=True)
        write_atomic(self.folder / "answers" / f"{name}.npz", content.getvalue())

    def _ask(self, split: str, rows: np.ndarray, module: Gpt, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
        """Ask in the tokens of the first base, those of the same string taken for the same."""
        ours, theirs = self.first_tokenizer.get_vocab(), tokenizer.get_vocab()
        there = np.full(max(ours.values()) + 1, theirs["<unk>"])
        back = np.full(module.signature.vocab_size, -1)
        for token, number in theirs.items():
            if token in ours:
                there[ours[token]] = number
                back[number] = ours[token]
        to, cut = torch.from_numpy(there), self.cut("tang", split, self.first_tokenizer)
        nats, says = [], []
        where = next(module.parameters()).device
        with torch.inference_mode():
            for start in range(0, len(rows), _AT_ONCE):
                plain = collate_windows(cut, rows[start : start + _AT_ONCE])
                asked_BT = plain.targets != NOT_PREDICTED
                targets_BT = torch.where(asked_BT, to[plain.targets.clamp(min=0)], NOT_PREDICTED)
                batch = Batch(
                    rows_B=plain.rows_B,
                    tokens_BT=to[plain.text[0]],
                    mask_BT=plain.mask_BT,
                    positions_BT=plain.positions_BT,
                    targets_BT=targets_BT,
                ).to(where)
                logits_MV = module(batch).logits.float()
                lost_M = F.cross_entropy(logits_MV, batch.targets[asked_BT.to(where)], reduction="none").cpu()
                owner_M = torch.arange(len(asked_BT))[:, None].expand_as(asked_BT)[asked_BT]
                sums = torch.zeros(len(asked_BT)).index_add_(0, owner_M, lost_M)
                nats.append(sums.numpy())
                says.append(back[logits_MV.argmax(-1).cpu().numpy()])
        return np.concatenate(nats).astype(np.float32), np.concatenate(says).astype(np.int32)

    def epochs(self, base: str) -> list[list[np.ndarray]]:
        """The plan of a base's run: the windows of each batch of each epoch."""
        found = self.find(base)
        assert found is not None
        config = LanguageConfig(**found.config["train"])
        lengths = self.cut(self.items[base].values["data"], "train", self.tokenizer(base)).lengths
        seeds, left, epochs = self.seeds(base), found.json("training.json")["n_steps"], []
        while left > 0:
            epochs.append(shuffled(lengths, config.batch_tokens, seeds.generator("order", len(epochs)))[:left])
            left -= len(epochs[-1])
        return epochs

    def lengths(self) -> np.ndarray:
        """Tokens of the training windows that all are asked."""
        return self.cut("tang", "train", self.first_tokenizer).lengths[self.asked[0]]
