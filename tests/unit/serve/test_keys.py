from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from danlu.core.errors import CorruptError, UsageError
from danlu.serve.keys import KeyRing, make_key


def test_a_key_opens_and_is_kept_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    key, made = make_key(path, "the web site", ["ask"], per_minute=3)
    other, _ = make_key(path, "another")
    secret = key.rpartition("-")[2] if key.count("-") == 2 else key.split("-", 2)[2]
    for file in path.parent.iterdir():
        assert secret not in file.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    ring = KeyRing(path)
    assert ring.needed
    assert ring.find(key) == made
    assert ring.find(key).scopes == ("ask",)
    assert ring.find(other).scopes == ("ask",), "a key may do no more than ask unless it is said"


def test_what_is_no_key_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key, made = make_key(path, "one")
    other, _ = make_key(path, "two")
    ring = KeyRing(path)
    swapped = f"danlu-{made.id}-{other.split('-', 2)[2]}"
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    for wrong in [
        "",
        "x",
        "ä\ud800",
        key[:-1],
        f"{key}x",
        f" {key}",
        key.upper(),
        made.hash,
        made.id,
        swapped,
        changed,
    ]:
        assert ring.find(wrong) is None


def test_a_key_is_taken_back_at_once_and_a_server_never_opens_up_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ring = KeyRing(path)
    assert not ring.look()
    key, _ = make_key(path, "one")
    assert ring.look()
    assert ring.find(key) is not None
    path.write_text(json.dumps({"keys": []}))
    assert ring.find(key) is None
    assert ring.look(), "without any key left nobody gets in"
    path.unlink()
    assert ring.find(key) is None
    assert ring.look()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"keys": [{"id": "x"}]}', '{"keys": [3]}'])
def test_a_file_that_is_no_file_of_keys_lets_nobody_in(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys.json"
    key, _ = make_key(path, "one")
    ring = KeyRing(path)
    path.write_text(content)
    for _ in range(2):
        with pytest.raises(CorruptError, match=r"JSON|file of keys"):
            ring.find(key)
    with pytest.raises(CorruptError):
        KeyRing(path)
    with pytest.raises(CorruptError):
        make_key(path, "two")
    assert path.read_text() == content


def test_a_rate_is_kept(tmp_path: Path) -> None:
    now = [100.0]
    key, _ = make_key(tmp_path / "keys.json", "one", per_minute=2)
    free, _ = make_key(tmp_path / "keys.json", "two")
    ring = KeyRing(tmp_path / "keys.json", clock=lambda: now[0])
    found, unlimited = ring.find(key), ring.find(free)
    assert [ring.wait(found) for _ in range(2)] == [0, 0]
    assert ring.wait(found) == pytest.approx(30)
    now[0] += 29
    assert ring.wait(found) == pytest.approx(1)
    now[0] += 1.001
    assert ring.wait(found) == 0
    assert ring.wait(found) > 29
    now[0] += 1e6
    assert [ring.wait(found) > 0 for _ in range(3)] == [False, False, True], "what is not used does not add up"
    assert [ring.wait(unlimited) for _ in range(50)] == [0] * 50


@pytest.mark.parametrize(
    ("name", "scopes", "rate"), [("", ["ask"], 1), ("a\nb", ["ask"], 1), ("x", [], 1), ("x", ["ask"], 0)]
)
def test_a_key_for_nothing_is_not_made(tmp_path: Path, name: str, scopes: list, rate: int) -> None:
    with pytest.raises(UsageError):
        make_key(tmp_path / "keys.json", name, scopes, rate)
    assert not (tmp_path / "keys.json").exists()


def test_two_keys_do_not_have_one_name(tmp_path: Path) -> None:
    make_key(tmp_path / "keys.json", "one")
    with pytest.raises(UsageError, match="already"):
        make_key(tmp_path / "keys.json", "one")
    assert len(json.loads((tmp_path / "keys.json").read_text())["keys"]) == 1
