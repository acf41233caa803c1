"""What a model can be asked, in the process that holds it: from its predictor to the batches that are made for it."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from pydantic import ValidationError

from danlu.core.batch import Batch
from danlu.core.errors import DanluError, UsageError
from danlu.data.batches import Tokens, collate
from danlu.data.clean import standard_texts
from danlu.data.tokenizer import PAD, encode
from danlu.explain.attribution import can_explain, explain
from danlu.model.base import Generative
from danlu.model.classifier import NeuralClassifier
from danlu.model.decode import DecodeConfig, prompt_batch
from danlu.model.decoding.engine import quick
from danlu.model.decoding.pieces import Spelling
from danlu.model.decoding.sampling import uniforms
from danlu.model.language import NeuralLanguageModel
from danlu.model.predictor import Predictor
from danlu.model.text import TextModel
from danlu.model.translator import NeuralTranslator
from danlu.model.vectors import with_vectors
from danlu.serve.batcher import Batcher, Continuous, Gathering, InputError, Kind
from danlu.serve.config import ServeConfig
from danlu.serve.slots import Slots
from danlu.serve.writing import Chosen, Order, Prompt, Speller, Text, told

__all__ = ["batchers_of", "facts_of"]

_READ_AT_ONCE = 64
"""Texts that are turned into vectors at a time."""


def facts_of(predictor: Predictor) -> dict[str, Any]:
    """What callers may know of a model."""
    answerer = predictor.answerer
    return {
        "task": predictor.task,
        "family": predictor.family,
        "classes": list(predictor.classes),
        "image_size": predictor.image_size,
        "n_parameters": answerer.n_parameters,
        "max_len": answerer.config.max_len if isinstance(answerer, TextModel) else None,
        "kinds": sorted([*_kinds(predictor), *(["write"] if isinstance(answerer, NeuralLanguageModel) else [])]),
    }


def batchers_of(predictor: Predictor, config: ServeConfig) -> dict[str, Batcher]:
    """What works on each kind of request.

    Raises:
        UsageError: The model cannot be asked, or its texts cannot be cleaned for want of a package.
    """
    kinds = _kinds(predictor)
    standard_texts([""], predictor.clean)  # now rather than at the first request: a package may be missing
    gathering = Gathering(kinds, config.batch_size, config.batch_wait)
    found: dict[str, Batcher] = dict.fromkeys(kinds, gathering)
    if "explain" in kinds:  # one at a time: each takes as long as many answers, and these are not to wait for more
        found["explain"] = Gathering({"explain": kinds["explain"]}, 1, 0.0)
    if isinstance(predictor.answerer, NeuralLanguageModel):
        writer = _Writer(predictor, predictor.answerer, config)
        found["write"] = Continuous(writer.slots, writer.order, writer.ends, writer.vocab_size)
    if not found:
        advice = "serve a neural model of the same recipe"
        raise UsageError(f"a {predictor.family} cannot be served: it draws what it writes", advice=advice)
    return found


def _kinds(predictor: Predictor) -> dict[str, Kind]:
    """What is answered in one go."""
    answerer = predictor.answerer
    found = {}
    if predictor.task == "text-classification":
        found["predict"] = Kind(_text, lambda texts: _classified(predictor, texts))
    elif predictor.task == "image-classification":
        found["predict"] = Kind(lambda given: _picture(predictor, given), lambda pictures: _named(predictor, pictures))
    elif predictor.task == "translation":
        found["predict"] = Kind(_text, lambda texts: _translated(predictor, texts))
    if can_explain(predictor):
        found["explain"] = Kind(
            found["predict"].prepare, lambda given: [explain(predictor, one).plain() for one in given]
        )
    if isinstance(answerer, NeuralClassifier | NeuralLanguageModel):
        found["embed"] = Kind(lambda text: _read(predictor, answerer, text), lambda ids: _vectors(answerer, ids))
    return found


def _text(given: Any) -> str:
    assert isinstance(given, str)
    return given


def _picture(predictor: Predictor, given: str) -> np.ndarray:
    """A picture's file in base64 to numbers."""
    try:
        content = base64.b64decode(given, validate=True)
    except (ValueError, binascii.Error):
        raise InputError("invalid_value", "a picture is the content of its file, in base64") from None
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            return cast("np.ndarray", predictor.open_images([Path(file.name)])[0])
        except DanluError as error:
            raise InputError("invalid_value", error.what) from None


def _classified(predictor: Predictor, texts: Sequence[str]) -> list[dict[str, Any]]:
    if not isinstance(answerer := predictor.answerer, NeuralClassifier):
        return _labelled(predictor, predictor.predict_proba(texts))
    cleaned = standard_texts(texts, predictor.clean)
    tokens = answerer.encode(cleaned)
    found = _labelled(predictor, answerer.probabilities(tokens))
    read = _read_of(answerer, cleaned, tokens, answerer.config.max_len, special=True)
    return [{**each, **facts} for each, facts in zip(found, read, strict=True)]


def _translated(predictor: Predictor, texts: Sequence[str]) -> list[dict[str, Any]]:
    answerer = cast("NeuralTranslator", predictor.answerer)
    found = [{"translation": each} for each in predictor.translate(texts)]
    cleaned, most = standard_texts(texts, predictor.clean), answerer.config.max_len - 1
    read = _read_of(answerer, cleaned, encode(answerer.tokenizer, cleaned, most, special=False), most, special=False)
    return [{**each, **facts} for each, facts in zip(found, read, strict=True)]


def _read_of(
    model: TextModel, texts: Sequence[str], tokens: Tokens, most: int, *, special: bool
) -> list[dict[str, Any]]:
    """The tokens that each text has, and whether the model saw only so many as it can: the beginning and the end."""
    lengths = tokens.lengths.copy()
    full = np.flatnonzero(lengths >= most)  # only these may have been longer
    lengths[full] = encode(model.tokenizer, [texts[row] for row in full.tolist()], None, special=special).lengths
    return [{"n_tokens": n, "truncated": n > most} for n in lengths.tolist()]


def _named(predictor: Predictor, pictures: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    return _labelled(predictor, predictor.image_proba(np.stack(pictures)))


def _labelled(predictor: Predictor, probabilities_nN: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "label": predictor.classes[int(row.argmax())],
            "probability": round(float(row.max()), 6),
            "probabilities": {name: round(float(p), 6) for name, p in zip(predictor.classes, row, strict=True)},
        }
        for row in probabilities_nN
    ]


def _read(predictor: Predictor, model: NeuralClassifier | NeuralLanguageModel, text: str) -> list[int]:
    """The tokens of a text; one that the model cannot see as a whole is refused, and not cut without a word."""
    special = isinstance(model, NeuralClassifier)
    tokens = encode(model.tokenizer, standard_texts([text], predictor.clean), None, special=special).ids.tolist()
    read = tokens if special else [model.special.begin, *tokens]
    if len(read) > model.config.max_len:
        raise _too_long(len(read), 0, model.config.max_len, "input")
    return read or [PAD]


def _vectors(model: NeuralClassifier | NeuralLanguageModel, texts: Sequence[list[int]]) -> list[dict[str, Any]]:
    """The mean over a text's tokens of what the head sees of them, at length 1."""
    tokens = Tokens.of(list(texts))

    def read() -> np.ndarray:
        with torch.inference_mode():
            for start in range(0, len(texts), _READ_AT_ONCE):
                model.module(collate(tokens, np.arange(start, min(start + _READ_AT_ONCE, len(texts))), PAD))
        return tokens.lengths

    lengths_n, vectors_nD = with_vectors(model.module, len(texts), read)
    pairs = zip(vectors_nD.tolist(), lengths_n.tolist(), strict=True)
    return [{"vector": vector, "n_tokens": n} for vector, n in pairs]


def _too_long(n_prompt: int, n_new: int, max_len: int, param: str) -> InputError:
    asked = f"{n_prompt} tokens" + (f" and {n_new} tokens after it" if n_new else "")
    return InputError("context_length_exceeded", f"the model sees {max_len} tokens; the {param} has {asked}", param)


class _Writer:
    """Turns requests into texts that are to be written."""

    def __init__(self, predictor: Predictor, model: NeuralLanguageModel, config: ServeConfig) -> None:
        self.ends = frozenset([model.special.end])
        self.vocab_size = model.module.signature.vocab_size
        self._generative = quick(cast("Generative", model.module.eval()))
        self.slots = Slots(self._generative, config.streams, model.special.begin)
        self._predictor, self._model = predictor, model
        self._speller = Speller(Spelling(model.tokenizer))
        self._longest_prompt = config.limits.prompt_tokens or model.config.max_len

    def order(self, request: dict[str, Any]) -> Order:
        """The texts of a request.

        Raises:
            InputError: A prompt, with what is asked after it, is longer than the model can see, or holds what is no
                token; or ways to choose tokens do not fit together.
        """
        try:
            config = DecodeConfig(**request["decode"])
        except ValidationError as error:
            raise InputError("invalid_value", error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        order = Order(request["id"], config, request["logprobs"], request["stream"])
        max_new = request["max_tokens"]
        for place, given in enumerate(request["prompts"]):
            tokens = self._tokens(given, place)
            self._check(len(tokens), max_new, f"prompt[{place}]" if len(request["prompts"]) > 1 else "prompt")
            room = self._model.config.max_len - len(tokens)
            room = min(room, config.max_new_tokens) if max_new is None else max_new
            prompt = Prompt(tokens, self._echoed(tokens, request["logprobs"]) if request["echo"] else None)
            heights_BT = uniforms(config.seed, [tokens] * request["n"], room) if config.temperature else None
            order.n_prompt_tokens += len(tokens)
            for copy in range(request["n"]):
                heights = None if heights_BT is None else heights_BT[copy]
                order.texts.append(Text(order, prompt, room, heights, self._speller))
        return order

    def _tokens(self, given: str | list[int], place: int) -> list[int]:
        if isinstance(given, str):
            read = encode(self._model.tokenizer, standard_texts([given], self._predictor.clean), None, special=False)
            return [self._model.special.begin, *read.ids.tolist()]
        if not given or max(given) >= self.vocab_size or min(given) < 0:
            what = f"a prompt of token ids has at least one, from 0 to {self.vocab_size - 1}"
            raise InputError("invalid_value", what, f"prompt[{place}]")
        return given

    def _check(self, n_prompt: int, max_new: int | None, param: str) -> None:
        max_len = self._model.config.max_len
        if n_prompt + (1 if max_new is None else max_new) > max_len:
            raise _too_long(n_prompt, max_new or 0, max_len, param)
        if n_prompt > self._longest_prompt:
            what = f"a prompt may have {self._longest_prompt} tokens here; this one has {n_prompt}"
            raise InputError("context_length_exceeded", what, param)

    def _echoed(self, tokens: list[int], n_top: int | None) -> list[Chosen]:
        """The tokens of a prompt, with their probabilities where asked for; the first that is text has none.

        The token that begins a text spells nothing, and is left out.
        """
        begins = tokens[0] == self._model.special.begin
        shown = tokens[1:] if begins else tokens
        if n_top is None or not shown:
            return [Chosen(token) for token in shown]
        with torch.inference_mode():
            batch: Batch = prompt_batch([tokens], tokens[0])
            logits_TV = self._model.module(batch).logits[0]
        n_before = len(tokens) - len(shown)
        rest = told(logits_TV[n_before:-1], shown[1:], n_top) if len(shown) > 1 else []
        return [Chosen(shown[0]), *rest]
