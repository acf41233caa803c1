"""The baseline that nothing may ship without beating: character n-grams, TF-IDF, logistic regression."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.special import softmax
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from danlu.core.config import Config
from danlu.core.errors import CorruptError, DataError
from danlu.core.files import read_json, write_atomic, write_json

__all__ = ["TfidfConfig", "TfidfLogisticRegression"]


class TfidfConfig(Config):
    """TF-IDF of character n-grams with logistic regression."""

    ngram_min: int = Field(default=1, ge=1)
    """The shortest n-gram, in characters."""

    ngram_max: int = Field(default=3, ge=1)
    """The longest n-gram, in characters."""

    min_df: int = Field(default=2, ge=1)
    """In how many training texts an n-gram must occur to count."""

    sublinear_tf: bool = True
    """Whether an n-gram that occurs f times in a text weighs 1 + ln f instead of f."""

    C: float = Field(default=10.0, gt=0)
    """The inverse strength of the L2 penalty."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.ngram_min > self.ngram_max:
            raise ValueError("ngram_min must not be above ngram_max")
        return self


class TfidfLogisticRegression:
    """Logistic regression (lbfgs, L2) on TF-IDF of character n-grams, which works for any language.

    The defaults were chosen by 5-fold cross-validation on 15,671 Chinese reviews (macro F1): 1-3-grams with
    ``min_df=2`` and sublinear counts gave 0.8550; plain counts 0.8529; ``min_df=1`` 0.8530 and ``min_df=3`` 0.8532;
    C = 3 0.8519; 1-4-grams 0.8544 at about twice the time.

    Args:
        config: See :class:`TfidfConfig`.
    """

    def __init__(self, config: TfidfConfig) -> None:
        self.config = config
        self._vocabulary: list[str] = []
        self._idf_V = np.zeros(0, np.float32)
        self._coefficients_KV = np.zeros((0, 0), np.float32)
        self._intercepts_K = np.zeros(0, np.float32)
        self._vectorizer: TfidfVectorizer | None = None

    @property
    def n_parameters(self) -> int:
        """Coefficients and intercepts; the inverse document frequencies are not trained."""
        return self._coefficients_KV.size + self._intercepts_K.size

    def fit(self, texts: Sequence[str], labels: NDArray[np.integer]) -> Self:
        """Train.

        Args:
            texts: Training texts.
            labels: Their class indices; every class from 0 to the highest must occur.

        Raises:
            DataError: There is one class only, a class without texts, or no n-gram that is frequent enough.
        """
        counts = np.bincount(labels)
        if np.count_nonzero(counts) < 2:
            raise DataError("a classifier needs texts of at least two classes", where="the training split")
        if (counts == 0).any():
            raise DataError(f"class {int(counts.argmin())} has no text", where="the training split")
        vectorizer = self._new_vectorizer(None)
        try:
            features = vectorizer.fit_transform(texts)
        except ValueError as error:
            raise DataError(
                f"the baseline found nothing to count: {error}",
                where="the training split",
                advice="there are too few texts for this min_df; lower it, or bring more texts",
            ) from error
        regression = LogisticRegression(C=self.config.C, max_iter=1000).fit(features, labels)
        self._set(
            vectorizer.get_feature_names_out().tolist(),
            vectorizer.idf_.astype(np.float32),
            regression.coef_.astype(np.float32),
            regression.intercept_.astype(np.float32),
        )
        return self

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Class probabilities (B, N)."""
        assert self._vectorizer is not None, "fit or load first"
        logits_BK = self._vectorizer.transform(texts) @ self._coefficients_KV.T + self._intercepts_K
        if logits_BK.shape[1] == 1:  # two classes share one row of coefficients
            logits_BK = np.concatenate([np.zeros_like(logits_BK), logits_BK], axis=1)
        probabilities_BN: NDArray[np.float32] = softmax(logits_BK, axis=1).astype(np.float32)
        return probabilities_BN

    def read(self, text: str) -> str:
        """A text as n-grams are cut from it: in lower case, a run of white space one space."""
        return re.sub(r"\s\s+", " ", text.lower())

    def contributions(self, text: str) -> dict[str, NDArray[np.float32]]:
        """What each n-gram of a text adds to the logit of each class, (N,); with the intercepts that is all of it.

        The logits of two classes are 0 and what decides between them.
        """
        assert self._vectorizer is not None, "fit or load first"
        row = self._vectorizer.transform([text])
        added_KV = row.data * self._coefficients_KV[:, row.indices]
        if len(added_KV) == 1:
            added_KV = np.concatenate([np.zeros_like(added_KV), added_KV])
        return dict(zip([self._vocabulary[number] for number in row.indices], added_KV.T, strict=True))

    def save(self, folder: Path) -> None:
        """Write ``config.json``, ``vocabulary.json`` and ``model.safetensors`` into a folder."""
        write_json(folder / "config.json", self.config.plain())
        write_json(folder / "vocabulary.json", self._vocabulary)
        tensors = {"idf": self._idf_V, "coefficients": self._coefficients_KV, "intercepts": self._intercepts_K}
        write_atomic(folder / "model.safetensors", save(tensors))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; predictions are the same to the bit.

        Raises:
            CorruptError: A file is not what was written.
        """
        try:
            model = cls(TfidfConfig(**read_json(folder / "config.json")))
            tensors = load_file(folder / "model.safetensors")
            model._set(
                read_json(folder / "vocabulary.json"), tensors["idf"], tensors["coefficients"], tensors["intercepts"]
            )
        except (KeyError, TypeError, ValueError, ValidationError, SafetensorError, FileNotFoundError) as error:
            raise CorruptError(f"not a saved baseline: {error}", where=str(folder)) from error
        return model

    def _set(
        self,
        vocabulary: list[str],
        idf_V: NDArray[np.float32],
        coefficients_KV: NDArray[np.float32],
        intercepts_K: NDArray[np.float32],
    ) -> None:
        """The one way to become ready, after fitting and after loading."""
        if not len(vocabulary) == len(idf_V) == coefficients_KV.shape[1] or len(coefficients_KV) != len(intercepts_K):
            raise ValueError("vocabulary and tensors differ in size")
        self._vocabulary, self._idf_V = vocabulary, idf_V
        self._coefficients_KV, self._intercepts_K = np.ascontiguousarray(coefficients_KV), intercepts_K
        self._vectorizer = self._new_vectorizer(vocabulary)
        self._vectorizer.idf_ = idf_V

    def _new_vectorizer(self, vocabulary: list[str] | None) -> TfidfVectorizer:
        return TfidfVectorizer(
            analyzer="char",
            ngram_range=(self.config.ngram_min, self.config.ngram_max),
            min_df=self.config.min_df,
            sublinear_tf=self.config.sublinear_tf,
            vocabulary=vocabulary,
            dtype=np.float32,
        )
