"""The ledger: append-only, chained, whole after a crash and under several writers."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.core.artifact import Artifact
from danlu.core.chain import Chain
from danlu.core.errors import CorruptError, RefusedError, UsageError
from danlu.core.files import digest_of
from danlu.core.ledger import Ledger, login_name


def artifact(digest: str, kind: str = "model") -> Artifact:
    return Artifact(Path("nowhere"), {"digest": digest * 64, "kind": kind})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Four entries."""
    made = Ledger(tmp_path / "refs" / "ledger.jsonl")
    made.set_alias("reviews", "latest", artifact("a"), reason="trained")
    made.set_alias("reviews", "champion", artifact("a"), reason="beats the baseline")
    made.set_alias("reviews", "champion", artifact("b"), reason="回滚")
    made.set_alias("digits", "champion", artifact("c"), reason="trained")
    return made


def lines(ledger: Ledger) -> list[bytes]:
    return ledger.path.read_bytes().splitlines(keepends=True)


def test_nothing_is_named_yet(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "refs" / "ledger.jsonl")
    assert ledger.entries() == []
    assert not ledger.means("reviews", "champion", "a" * 64)
    with pytest.raises(UsageError, match="no model is named 'reviews'") as caught:
        ledger.resolve("reviews", "champion")
    assert "danlu run" in (caught.value.advice or "")
    assert list(tmp_path.iterdir()) == []


def test_an_alias_means_what_was_said_last(ledger: Ledger) -> None:
    assert ledger.resolve("reviews", "champion") == "b" * 64
    assert ledger.resolve("reviews", "latest") == "a" * 64
    assert ledger.resolve("digits", "champion") == "c" * 64
    assert ledger.means("reviews", "champion", "b" * 64)
    assert not ledger.means("reviews", "champion", "a" * 64)
    assert [entry.reason for entry in ledger.entries()] == ["trained", "beats the baseline", "回滚", "trained"]


def test_the_chain_is_what_the_docstring_says(ledger: Ledger) -> None:
    stored = [json.loads(line) for line in lines(ledger)]
    previous = "0" * 64
    for number, entry in enumerate(stored):
        assert entry["seq"] == number
        assert entry["prev"] == previous
        previous = entry.pop("hash")
        assert previous == digest_of(entry)


def test_hashes_never_drift() -> None:
    entry = {
        "seq": 0,
        "time": "2026-01-02T03:04:05Z",
        "name": "reviews",
        "alias": "champion",
        "kind": "model",
        "digest": "a" * 64,
        "reason": "更好",
        "prev": "0" * 64,
    }
    assert digest_of(entry) == "9f6e69d1adc653dd6de4d44429291d598bddad756f6d98153bb242235fd87d0a"


def test_misspelt_names_and_aliases_suggest_the_nearest(ledger: Ledger) -> None:
    with pytest.raises(UsageError) as caught:
        ledger.resolve("review", "champion")
    assert caught.value.advice == "did you mean 'reviews'?"
    with pytest.raises(UsageError) as caught:
        ledger.resolve("reviews", "champoin")
    assert caught.value.advice == "did you mean 'champion'?"
    with pytest.raises(UsageError, match="digits has no alias 'latest'"):
        ledger.resolve("digits", "latest")


@pytest.mark.parametrize("alias", ["", "Champion", "a b", "@x", "1st", "x\n", "冠军"])
def test_an_alias_is_a_lower_case_word(ledger: Ledger, alias: str) -> None:
    before = ledger.path.read_bytes()
    with pytest.raises(UsageError, match="not an alias"):
        ledger.set_alias("reviews", alias, artifact("a"), reason="x")
    assert ledger.path.read_bytes() == before


# who, from which evidence, and against what


def test_who_did_it_and_from_what_is_kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "zhang")
    ledger.set_alias("reviews", "champion", artifact("d"), reason="x", by="李", evidence=("e" * 64, "f" * 64))
    ledger.set_alias("reviews", "champion", artifact("e"), reason="y")
    *_, told, untold = Ledger(ledger.path).history("reviews")
    assert (told.by, told.evidence) == ("李", ("e" * 64, "f" * 64))
    assert (untold.by, untold.evidence) == ("zhang", ())
    assert [entry.alias for entry in ledger.history("reviews")] == ["latest", *["champion"] * 4]
    assert [entry.digest[0] for entry in ledger.history("digits")] == ["c"]
    assert ledger.history("nobody") == []


def test_there_is_always_a_login_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "\udce4")
    login_name().encode()

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert login_name().startswith("user ")


def test_entries_of_before_are_read_and_verify(tmp_path: Path) -> None:
    """As versions wrote them that recorded neither who nor from which evidence."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    old = {"time": "2026-01-02T03:04:05Z", "name": "reviews", "alias": "champion", "kind": "model", "digest": "a" * 64}
    Chain(ledger.path).append({**old, "reason": "更好"})
    ledger.set_alias("reviews", "champion", artifact("b"), reason="x", expect="a" * 64, by="li")
    assert [(entry.digest[0], entry.by, entry.evidence) for entry in ledger.entries()] == [
        ("a", "", ()),
        ("b", "li", ()),
    ]


def test_an_alias_that_has_moved_is_not_moved_again(ledger: Ledger) -> None:
    ledger.set_alias("reviews", "champion", artifact("d"), reason="the first", expect="b" * 64, by="li")
    before = ledger.path.read_bytes()
    with pytest.raises(RefusedError) as caught:
        ledger.set_alias("reviews", "champion", artifact("e"), reason="the second", expect="b" * 64)
    assert caught.value.exit_code == 3
    said = str(caught.value)
    assert "reviews@champion no longer means bbbbbbbbbbbb" in said
    assert "it means dddddddddddd since 20" in said
    assert "by li: the first" in said
    assert ledger.path.read_bytes() == before


def test_nothing_can_be_expected_as_well(ledger: Ledger) -> None:
    ledger.set_alias("poems", "champion", artifact("d"), reason="first", expect=None)
    with pytest.raises(RefusedError, match="no longer means nothing"):
        ledger.set_alias("poems", "champion", artifact("e"), reason="first, too", expect=None)
    with pytest.raises(RefusedError, match="it means nothing yet"):
        ledger.set_alias("stories", "champion", artifact("e"), reason="x", expect="d" * 64)
    assert ledger.resolve("poems", "champion") == "d" * 64


def test_a_refused_entry_leaves_a_torn_line_as_it_is(ledger: Ledger) -> None:
    torn = ledger.path.read_bytes() + b'{"seq": 4, '
    ledger.path.write_bytes(torn)
    with pytest.raises(RefusedError):
        ledger.set_alias("reviews", "champion", artifact("e"), reason="x", expect="f" * 64)
    assert ledger.path.read_bytes() == torn


def test_half_a_character_is_refused(ledger: Ledger) -> None:
    before = ledger.path.read_bytes()
    with pytest.raises(UsageError, match="not UTF-8"):
        ledger.set_alias("reviews", "champion", artifact("e"), reason="\udce4")
    assert ledger.path.read_bytes() == before


def test_what_an_alias_means_may_be_asked_often(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger.current("reviews", "champion") == "b" * 64
    with monkeypatch.context() as patch:
        patch.setattr(Chain, "entries", lambda *_, **__: pytest.fail("read"))
        assert ledger.current("reviews", "latest") == "a" * 64
        assert ledger.current("reviews", "challenger") is None
    Ledger(ledger.path).set_alias("reviews", "champion", artifact("e"), reason="x")
    assert ledger.current("reviews", "champion") == "e" * 64
    assert Ledger(ledger.path.parent / "none.jsonl").current("reviews", "champion") is None


SWAP = """
import sys
from pathlib import Path
from danlu.core.artifact import Artifact
from danlu.core.errors import RefusedError
from danlu.core.ledger import Ledger
artifact = Artifact(Path(), {"digest": sys.argv[2], "kind": "model"})
sys.stdin.readline()
try:
    Ledger(Path(sys.argv[1])).set_alias("reviews", "champion", artifact, reason="mine", expect="b" * 64)
except RefusedError:
    sys.exit(3)
"""


def test_of_several_that_expect_the_same_one_wins(ledger: Ledger) -> None:
    command = [sys.executable, "-c", SWAP, str(ledger.path)]
    tried = [subprocess.Popen([*command, str(who)], stdin=subprocess.PIPE) for who in range(4)]
    for each in tried:
        assert each.stdin is not None
        each.stdin.close()
    codes = [each.wait() for each in tried]
    assert sorted(codes) == [0, 3, 3, 3]
    assert ledger.entries()[-1].digest == str(codes.index(0))
    assert len(ledger.entries()) == 5


# tampering


def change(field: str, value: object) -> Callable[[bytes], bytes]:
    return lambda line: json.dumps({**json.loads(line), field: value}).encode() + b"\n"


def rehashed(field: str, value: object) -> Callable[[bytes], bytes]:
    def forge(line: bytes) -> bytes:
        entry = {**json.loads(line), field: value}
        del entry["hash"]
        return json.dumps({**entry, "hash": digest_of(entry)}).encode() + b"\n"

    return forge


FORGERIES = {
    "seq": change("seq", 7),
    "time": change("time", "1999-01-01T00:00:00Z"),
    "name": change("name", "other"),
    "alias": change("alias", "latest"),
    "kind": change("kind", "dataset"),
    "digest": change("digest", "f" * 64),
    "reason": change("reason", ""),
    "prev": change("prev", "0" * 63 + "1"),
    "hash": change("hash", "0" * 64),
    "no hash": change("hash", ""),
    "a float": change("seq", 1.0),
    "not a number": change("seq", float("nan")),
    "half a character": change("reason", "\ud800"),
    "a new field": change("extra", 1),
    "garbage": lambda _: b"\x00\xff garbage\n",
    "nested": lambda _: b"[" * 100_000 + b"\n",
    "a list": lambda _: b"[1, 2]\n",
    "blank": lambda _: b"\n",
    "a lost field": lambda line: (
        json.dumps({k: v for k, v in json.loads(line).items() if k != "reason"}).encode() + b"\n"
    ),
    "rehashed order": rehashed("seq", 0),
    "rehashed chain": rehashed("prev", "0" * 63 + "1"),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_changed_line_is_found_and_named(ledger: Ledger, forgery: str, number: int) -> None:
    stored = lines(ledger)
    stored[number - 1] = FORGERIES[forgery](stored[number - 1])
    ledger.path.write_bytes(b"".join(stored))
    for read in (
        ledger.entries,
        lambda: ledger.resolve("reviews", "champion"),
        lambda: ledger.means("reviews", "champion", "b" * 64),
        lambda: ledger.set_alias("reviews", "champion", artifact("d"), reason="x"),
    ):
        with pytest.raises(CorruptError, match=f"line {number} ") as caught:
            read()
        assert caught.value.where == f"{ledger.path}:{number}"
    assert lines(ledger) == stored


def test_a_line_rewritten_with_a_hash_that_fits_breaks_the_next(ledger: Ledger) -> None:
    stored = lines(ledger)
    stored[1] = rehashed("digest", "f" * 64)(stored[1])
    ledger.path.write_bytes(b"".join(stored))
    with pytest.raises(CorruptError, match="line 3 does not follow"):
        ledger.entries()


@pytest.mark.parametrize(
    ("order", "wrong"),
    [([1, 2, 3], 1), ([0, 2, 3], 2), ([0, 1, 3], 3), ([1, 0, 2, 3], 1), ([0, 1, 1, 2, 3], 3), ([0, 1, 3, 2], 3)],
)
def test_lines_removed_swapped_or_repeated_are_found(ledger: Ledger, order: list[int], wrong: int) -> None:
    stored = lines(ledger)
    ledger.path.write_bytes(b"".join(stored[number] for number in order))
    with pytest.raises(CorruptError, match=f"line {wrong} does not follow"):
        ledger.entries()


@settings(max_examples=50)
@given(st.data())
def test_any_byte_changed_breaks_the_chain_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    for reason in ("first", "第二"):
        ledger.set_alias("reviews", "champion", artifact("a"), reason=reason)
    entries, content = ledger.entries(), bytearray(ledger.path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 2))  # without the last newline the last line counts as torn
    content[place] ^= data.draw(st.integers(1, 255))
    ledger.path.write_bytes(content)
    with contextlib.suppress(CorruptError):
        assert ledger.entries() == entries


# crashes and crowds


def test_a_torn_last_line_is_passed_over_and_then_replaced(ledger: Ledger) -> None:
    before, content = ledger.entries(), ledger.path.read_bytes()
    start_of_last = content[:-1].rindex(b"\n") + 1
    for cut in {*range(start_of_last, len(content), 17), len(content) - 1}:
        ledger.path.write_bytes(content[:cut])
        assert ledger.entries() == before[:3]
        ledger.set_alias("digits", "challenger", artifact("d"), reason="after the crash")
        assert ledger.entries()[:3] == before[:3]
        assert [entry.alias for entry in ledger.entries()[3:]] == ["challenger"]


APPEND = """
import sys
from pathlib import Path
from danlu.core.artifact import Artifact
from danlu.core.chain import Chain
from danlu.core.ledger import Ledger, login_name
ledger = Ledger(Path(sys.argv[1]))
for number in range(25):
    artifact = Artifact(Path(), {"digest": str(number), "kind": "model"})
    ledger.set_alias("m" + sys.argv[2], "champion", artifact, reason="x")
"""


def test_several_processes_append_to_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "refs" / "ledger.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, str(path), str(who)]) for who in range(4)]
    while any(writer.poll() is None for writer in writers):
        Ledger(path).entries()
    assert [writer.returncode for writer in writers] == [0] * 4
    entries = Ledger(path).entries()
    assert [entry.seq for entry in entries] == list(range(100))
    for who in range(4):
        assert [entry.digest for entry in entries if entry.name == f"m{who}"] == [str(number) for number in range(25)]


steps = st.tuples(st.sampled_from("ab"), st.sampled_from(["champion", "latest"]), st.sampled_from("0123"), st.text())


@settings(max_examples=40)
@given(st.lists(steps, max_size=8))
def test_it_remembers_what_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, str, str]]
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl")
    model: dict[tuple[str, str], str] = {}
    written = b""
    for name, alias, digest, reason in history:
        ledger.set_alias(name, alias, artifact(digest), reason=reason)
        model[name, alias] = digest * 64
        content = ledger.path.read_bytes()
        assert content.startswith(written)
        written = content
    assert {pair: ledger.resolve(*pair) for pair in model} == model
    assert [(e.name, e.alias, e.digest[0], e.reason) for e in ledger.entries()] == history
