from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from danlu.core.errors import DanluError
from danlu.data.batches import Tokens
from danlu.data.token_store import TokenStore
from danlu.data.tokenizer import TokenizerConfig, encode, train_tokenizer
from small import made_up

TEXTS = [text for text, _ in made_up(40)]
KEY = {"dataset": "d", "what": "train"}


class Counted:
    """Makes tokens, and counts how often."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.n += 1
        return vars(Tokens.of([[1, 2], [], [3]]))


@pytest.mark.parametrize("kept", [True, False])
def test_what_was_cut_is_what_comes_back(tmp_path: Path, kept: bool) -> None:
    store, make = TokenStore(tmp_path if kept else None), Counted()
    first, again = (Tokens(**store.arrays(KEY, make)) for _ in range(2))
    assert make.n == (1 if kept else 2)
    for found in (first, again):
        assert found.ids.tolist() == [1, 2, 3]
        assert found.ids.dtype == np.int32
        assert found.lengths.tolist() == [2, 0, 1]
    assert isinstance(again.ids, np.memmap) == kept
    assert TokenStore(tmp_path).arrays({**KEY, "what": "valid"}, make) is not None
    assert make.n == (2 if kept else 3)


def test_what_is_mapped_cannot_be_written_to(tmp_path: Path) -> None:
    ids = TokenStore(tmp_path).arrays(KEY, Counted())["ids"]
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 9


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    store, make = TokenStore(tmp_path), Counted()
    store.arrays(KEY, make)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    path = folder / ("manifest.json" if damage == "manifest" else "ids.npy")
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "cut":
        path.write_bytes(content[:-2])
    else:
        path.unlink()
    assert store.arrays(KEY, make)["ids"].tolist() == [1, 2, 3]
    assert make.n == 2


def test_a_tokenizer_is_learnt_once(tmp_path: Path) -> None:
    store, config, made = TokenStore(tmp_path), TokenizerConfig(kind="char", vocab_size=300), []

    def make():
        made.append(train_tokenizer(TEXTS, config))
        return made[-1]

    first, again = (store.tokenizer(KEY, make) for _ in range(2))
    assert len(made) == 1
    assert first.to_str() == again.to_str()
    assert encode(again, TEXTS, 20).ids.tolist() == encode(made[0], TEXTS, 20).ids.tolist()


def test_nothing_is_left_of_what_could_not_be_made(tmp_path: Path) -> None:
    def fail() -> dict[str, np.ndarray]:
        raise DanluError("no text")

    with pytest.raises(DanluError, match="no text"):
        TokenStore(tmp_path).arrays(KEY, fail)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_many_texts_are_cut_as_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from danlu.data import tokenizer as module

    made = train_tokenizer(TEXTS, TokenizerConfig(kind="char-bpe", vocab_size=400))
    whole = encode(made, TEXTS, 9)
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    parts = encode(made, TEXTS, 9)
    assert parts.ids.tolist() == whole.ids.tolist()
    assert parts.offsets.tolist() == whole.offsets.tolist()
    assert len(encode(made, [], 9)) == 0
