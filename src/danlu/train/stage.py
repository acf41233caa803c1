"""The train stage: a dataset artifact in, a model artifact out.

Work under way lives in the workspace's ``runs`` folder under a name that follows from everything that went in, so that
the same command finds it again and goes on; the artifact appears when the run has ended.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from danlu.core.artifact import Artifact
from danlu.core.batch import Batch
from danlu.core.config import Config
from danlu.core.files import digest_of, explained, lock, write_json
from danlu.core.progress import Progress
from danlu.core.seeds import Seeds
from danlu.core.workspace import Workspace
from danlu.data.batches import Tokens, collate
from danlu.data.prepare import CleanConfig
from danlu.data.stage import class_names, read_split
from danlu.data.tokenizer import PAD, TokenizerConfig, load_tokenizer, train_tokenizer
from danlu.model.base import FamilyConfig, Model
from danlu.model.classifier import NeuralClassifier, build_module
from danlu.model.init import initialise
from danlu.model.predictor import TFIDF, Classifier, Predictor
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression
from danlu.train.checkpoint import Run
from danlu.train.feed import PlannedFeed
from danlu.train.loop import Fitted, TrainConfig, fit

__all__ = ["Examples", "Score", "TrainingSpec", "load_examples", "train_baseline", "train_model"]

Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""Labels [n] and probabilities [n, N] of the validation split to metrics; ``"score"`` picks the best weights."""


class TrainingSpec(Config):
    """Everything that decides what a training run makes, besides the data."""

    model: FamilyConfig
    tokenizer: TokenizerConfig
    train: TrainConfig
    seed: int | None


@dataclass(frozen=True)
class Examples:
    """The texts of a split with their classes.

    Attributes:
        texts: n texts.
        labels: int64 [n].
    """

    texts: list[str]
    labels: np.ndarray
