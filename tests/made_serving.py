"""Tiny models as artifacts, ready to be served: untrained, but with weights that make up their mind."""

from __future__ import annotations

from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import nn

from danlu.core.artifact import Artifact
from danlu.core.workspace import Workspace
from danlu.data.clean import CleanConfig
from danlu.data.tokenizer import TokenizerConfig, train_tokenizer
from danlu.model.base import Model, Signature, Task
from danlu.model.classifier import NeuralClassifier
from danlu.model.image_classifier import NeuralImageClassifier
from danlu.model.language import NeuralLanguageModel
from danlu.model.predictor import Predictor
from danlu.model.translator import NeuralTranslator
from small import FAMILY, made_up, make_module, signature_of, translated

__all__ = ["made_predictor", "make_served"]

_SIDES = [text for text, _ in made_up()]
_CLASSES = ("bad", "good")
_PICTURE = (1, 14, 14)


def made_predictor(task: Task, family: str | None = None, **changes: Any) -> Predictor:
    """A predictor for a task; only values of the family's config change."""
    family = family or FAMILY[task]
    texts = [*_SIDES, *map(translated, _SIDES)] if task == "translation" else _SIDES
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind="char", vocab_size=340))
    clean = CleanConfig()
    if task == "image-classification":
        module = _decided(make_module(family, Signature(task=task, n_classes=2, image_size=_PICTURE), **changes))
        return Predictor(NeuralImageClassifier(module), task, family, clean, _CLASSES, _PICTURE)
    module = _decided(_module(task, family, tokenizer, changes))
    if task == "text-classification":
        return Predictor(NeuralClassifier(module, tokenizer), task, family, clean, _CLASSES)
    answerer = NeuralLanguageModel if task == "language-modelling" else NeuralTranslator
    return Predictor(answerer(module, tokenizer), task, family, clean)


def make_served(workspace: Workspace, name: str, task: Task, family: str | None = None, **changes: Any) -> Artifact:
    """Such a model in a workspace, its name's champion."""
    with workspace.create("model", name, key=f"{name} {changes}", config={}, parents={}) as draft:
        made_predictor(task, family, **changes).save(draft.folder)
    workspace.ledger.set_alias(name, "champion", draft.artifact, reason="the only one")
    return draft.artifact


def _module(task: Task, family: str, tokenizer: Tokenizer, changes: dict[str, Any]) -> Model:
    n_classes = len(_CLASSES) if task == "text-classification" else 0
    return make_module(family, signature_of(task, tokenizer, n_classes), **changes)


def _decided(module: Model) -> Model:
    """Weights so large that one answer is clearly ahead: nothing hangs on the order of a sum."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in cast("nn.Module", module).named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0.0, 0.5, generator=generator)
        elif name.endswith("weight"):
            nn.init.ones_(parameter)
    return module.eval()
