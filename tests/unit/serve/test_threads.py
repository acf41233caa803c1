from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from danlu.serve.threads import Threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    n = torch.get_num_threads()
    yield
    torch.set_num_threads(n)


def test_many_cheap_answers_leave_a_core_to_the_server() -> None:
    threads = Threads(3)
    with threads.batch(1, 1):
        assert torch.get_num_threads() == 3
    with threads.batch(5, 5):
        assert torch.get_num_threads() == 2
    with threads.batch(1, 32):
        assert torch.get_num_threads() == 3


def test_dear_answers_have_them_all() -> None:
    threads = Threads(2)
    for _ in range(8):
        with threads.batch(2, 2):
            time.sleep(0.02)
    assert threads.wanted(2) == 2
    for _ in range(20):
        with threads.batch(2, 64):
            pass
    assert threads.wanted(2) == 1


def test_one_is_the_least() -> None:
    assert Threads(1).wanted(9) == 1
