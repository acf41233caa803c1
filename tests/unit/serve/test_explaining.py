from __future__ import annotations

import base64
import io
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from danlu.explain.attribution import explain
from danlu.serve.answering import batchers_of, facts_of
from danlu.serve.batcher import InputError
from danlu.serve.config import ServeConfig
from made_serving import made_predictor


def asked(predictor, *inputs):
    """What the batcher of explanations replies to one request, and in how many parts."""
    batcher = batchers_of(predictor, ServeConfig())["explain"]
    batcher.add({"id": 1, "kind": "explain", "inputs": list(inputs)})
    n_steps, replies = 0, []
    while batcher.busy:
        time.sleep(batcher.patience)
        replies += batcher.step()
        n_steps += 1
    return replies[-1]["done"]["results"], n_steps


def test_a_text_is_explained_as_it_is_without_a_server():
    predictor = made_predictor("text-classification")
    results, n_steps = asked(predictor, "  这个东西，很好  ", "")
    assert results == [explain(predictor, "  这个东西，很好  ").plain(), explain(predictor, "").plain()]
    assert n_steps == 2  # one at a time, so that answers go between
    assert any(span["weight"] for span in results[0]["spans"])


def test_a_picture_is_explained_from_its_file():
    predictor = made_predictor("image-classification")
    image = np.random.default_rng(0).integers(0, 256, (14, 14), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    (found,), _ = asked(predictor, base64.b64encode(file.getvalue()).decode())
    assert found == explain(predictor, image[None]).plain()
    with pytest.raises(InputError, match="base64"):
        asked(predictor, "no picture!")


class Fixed:
    """A classifier that nothing is known of."""

    n_parameters = 0

    def predict_proba(self, texts):
        return np.full((len(texts), 2), 0.5, np.float32)


def test_only_what_can_be_explained_says_so():
    predictor = made_predictor("text-classification")
    assert "explain" in facts_of(predictor)["kinds"]
    for other in (replace(predictor, answerer=Fixed()), made_predictor("translation")):
        assert "explain" not in facts_of(other)["kinds"]
        assert "explain" not in batchers_of(other, ServeConfig())
