from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from danlu.serve.answering import batchers_of, facts_of
from danlu.serve.batcher import Gathering, Kind
from danlu.serve.config import ServeConfig
from danlu.serve.threads import settle
from made_serving import made_predictor


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    n = torch.get_num_threads()
    yield
    torch.set_num_threads(n)


@pytest.mark.parametrize("task", ["text-classification", "image-classification", "translation", "language-modelling"])
def test_every_kind_of_model_is_tried_and_left_as_it_was(task: Any) -> None:
    predictor = made_predictor(task)
    batchers = batchers_of(predictor, ServeConfig(streams=2))
    assert settle(batchers, facts_of(predictor), 3) in (2, 3)
    assert not any(each.busy for each in batchers.values())


@pytest.mark.parametrize(("seconds", "threads"), [(0.0, 3), (0.02, 4)])
def test_cheap_answers_leave_a_core_to_the_server(seconds: float, threads: int) -> None:
    def answer(given: Any) -> list[Any]:
        assert torch.get_num_threads() == 1
        time.sleep(seconds)
        return list(given)

    gathering = Gathering({"predict": Kind(str, answer)}, 8, 0.0)
    assert settle({"predict": gathering}, {"image_size": None}, 4) == threads
    assert torch.get_num_threads() == threads
    assert settle({"predict": gathering}, {"image_size": None}, 1) == 1
