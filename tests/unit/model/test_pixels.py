from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from danlu.core.errors import CorruptError, DataError
from danlu.model.pixels import PixelConfig, PixelLogisticRegression


def pictures(n_classes: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Noisy pictures, 1 by 6 by 6, each class bright in a row of its own."""
    draw = np.random.default_rng(1)
    labels = np.arange(n) % n_classes
    images = draw.integers(0, 120, (n, 1, 6, 6), dtype=np.uint8)
    images[np.arange(n), 0, labels] += 100
    return images, labels


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_it_answers_as_scikit_learn_does_and_the_same_when_it_is_loaded(tmp_path: Path, n_classes: int) -> None:
    images, labels = pictures(n_classes)
    model = PixelLogisticRegression(PixelConfig()).fit(images, labels)
    found = model.predict_proba(images)
    theirs = LogisticRegression(C=0.1, max_iter=100).fit(images.reshape(len(images), -1) / 255, labels)
    np.testing.assert_allclose(found, theirs.predict_proba(images.reshape(len(images), -1) / 255), atol=2e-3)
    assert (found.argmax(1) == labels).mean() > 0.9
    model.save(tmp_path)
    assert (PixelLogisticRegression.load(tmp_path).predict_proba(images) == found).all()


def test_a_damaged_file_and_a_single_class_are_refused(tmp_path: Path) -> None:
    images, labels = pictures(3)
    model = PixelLogisticRegression(PixelConfig()).fit(images, labels)
    model.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptError):
        PixelLogisticRegression.load(tmp_path)
    with pytest.raises(DataError, match="two classes"):
        PixelLogisticRegression(PixelConfig()).fit(images, labels * 0)
