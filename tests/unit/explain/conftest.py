"""Tiny classifiers that have learnt which characters and which side of a picture tell the class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from danlu.data.batches import collate
from danlu.data.clean import CleanConfig
from danlu.data.tokenizer import PAD, TokenizerConfig, encode, train_tokenizer
from danlu.model.base import Model, Signature
from danlu.model.classifier import NeuralClassifier
from danlu.model.ensemble import Ensemble
from danlu.model.families import ENSEMBLE, TFIDF
from danlu.model.image_classifier import NeuralImageClassifier, image_batch
from danlu.model.predictor import Predictor
from danlu.model.tfidf import TfidfConfig, TfidfLogisticRegression
from small import made_up, make_module, signature_of

CLASSES = ("bad", "good")
ROWS = made_up(200)
TEXTS = [text for text, _ in ROWS]
LABELS = np.array([CLASSES.index(label) for _, label in ROWS], np.int64)


def trained(module: Model, batch, n_steps: int) -> Model:
    """Weights after some steps on one batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(module.parameters(), 1e-2)
        module.train()
        for _ in range(n_steps):
            optimizer.zero_grad()
            F.cross_entropy(module(batch).logits, batch.labels_B).backward()
            optimizer.step()
    return module.eval()


def classifier(family: str) -> NeuralClassifier:
    tokenizer = train_tokenizer(TEXTS, TokenizerConfig(kind="char", vocab_size=340))
    tokens = encode(tokenizer, TEXTS, 32)
    module = make_module(family, signature_of("text-classification", tokenizer, 2))
    return NeuralClassifier(trained(module, collate(tokens, np.arange(len(tokens)), PAD, LABELS), 40), tokenizer)


@pytest.fixture(scope="session")
def text_models() -> dict[str, Predictor]:
    """By family."""
    bert, gru = classifier("bert"), classifier("gru")
    tfidf = TfidfLogisticRegression(TfidfConfig()).fit(TEXTS, LABELS)
    ensemble = Ensemble({"bert": bert, TFIDF: tfidf}, np.array([0.7, 0.4]), np.array([0.1, -0.1]))
    answerers = {"bert": bert, "gru": gru, TFIDF: tfidf, ENSEMBLE: ensemble}
    return {
        family: Predictor(answerer, "text-classification", family, CleanConfig(), CLASSES)
        for family, answerer in answerers.items()
    }


@pytest.fixture(scope="session")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures, uint8 [n, 3, 14, 14], that are bright on the left (0) or on the right (1)."""
    draw = np.random.default_rng(1)
    labels = np.arange(60) % 2
    images = draw.integers(0, 100, (60, 3, 14, 14), dtype=np.uint8)
    images[labels == 0, :, :, :7] += 120
    images[labels == 1, :, :, 7:] += 120
    return images, labels


@pytest.fixture(scope="session")
def picture_model(pictures) -> Predictor:
    images, labels = pictures
    module = make_module("cnn", Signature(task="image-classification", n_classes=2, image_size=(3, 14, 14)))
    trained(module, image_batch(images, np.arange(len(images)), labels), 20)
    return Predictor(
        NeuralImageClassifier(module), "image-classification", "cnn", CleanConfig(), ("left", "right"), (3, 14, 14)
    )
