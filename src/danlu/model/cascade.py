"""A translation memory and a network that answer as one, as in a translators' office: known matter is looked up.

A text that is similar enough to a known one gets the memory's translation, any other the network's. How similar is
enough is chosen on the validation split, which neither has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from danlu.core.errors import CorruptError
from danlu.core.files import read_json, write_json
from danlu.model.translation_memory import TranslationMemory
from danlu.model.translator import NeuralTranslator

__all__ = ["Cascade", "best_threshold"]

_MEMORY, _NETWORK = "memory", "network"


class Cascade:
    """The memory where it is sure, the network elsewhere.

    Args:
        memory: What is asked first.
        network: What is asked where the memory is not sure.
        threshold: The similarity, from 0 to 1, from which the memory is sure; above 1 it never is.
    """

    def __init__(self, memory: TranslationMemory, network: NeuralTranslator, threshold: float) -> None:
        self.memory = memory
        self.network = network
        self.threshold = threshold

    @property
    def n_parameters(self) -> int:
        """Those of the network, the known pairs, and the threshold."""
        return self.memory.n_parameters + self.network.n_parameters + 1

    def translate(self, texts: Sequence[str]) -> list[str]:
        """The translation of each text."""
        answers = self.memory.answers(texts)
        unsure = [row for row, answer in enumerate(answers) if answer.similarity < self.threshold]
        found = [answer.translation for answer in answers]
        for row, translation in zip(unsure, self.network.translate([texts[row] for row in unsure]), strict=True):
            found[row] = translation
        return found

    def save(self, folder: Path) -> None:
        """Write ``cascade.json``, and the memory and the network in a folder each."""
        for name, member in ((_MEMORY, self.memory), (_NETWORK, self.network)):
            (folder / name).mkdir()
            member.save(folder / name)
        write_json(folder / "cascade.json", {"threshold": self.threshold})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            CorruptError: A file is missing or not what was written.
        """
        stored = read_json(folder / "cascade.json")
        if not isinstance(stored, dict) or not isinstance(threshold := stored.get("threshold"), float):
            raise CorruptError("no threshold", where=str(folder / "cascade.json"))
        return cls(TranslationMemory.load(folder / _MEMORY), NeuralTranslator.load(folder / _NETWORK), threshold)


def best_threshold(similarity_B: np.ndarray, memory_B: np.ndarray, network_B: np.ndarray) -> float:
    """The similarity from which the memory's answers, and below which the network's, are best on average.

    Args:
        similarity_B: float64; of each text to what the memory knows.
        memory_B: float64; how good the memory's translation of it is.
        network_B: float64; how good the network's is.

    Returns:
        One of the similarities, or 2 where the memory's answers are never better.
    """
    order_B = np.argsort(-similarity_B, kind="stable")
    gain_B = np.cumsum((memory_B - network_B)[order_B])
    falling_B = similarity_B[order_B]
    # Texts of equal similarity are taken together: only the last of them is a place to stop.
    last_B = np.append(falling_B[1:] < falling_B[:-1], True)
    gain_B = np.where(last_B, gain_B, -np.inf)
    best = int(gain_B.argmax())
    return float(falling_B[best]) if gain_B[best] > 0 else 2.0
