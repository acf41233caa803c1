"""Reading .mo catalogues, against the standard library's reader of the same bytes."""

from __future__ import annotations

import gettext
import io
import struct
from pathlib import Path

import pytest

from danlu.core.errors import CorruptError
from danlu.data.catalogue import read_catalogue

HEADER = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n"
MESSAGES = {
    "": HEADER,
    "Open": "打开",
    "menu\4Open": "打开文件",
    "one file\0%d files": "一个文件\0%d 个文件",
    "untranslated": "",
}


def catalogue(messages: dict[str, str], order: str = "<") -> bytes:
    pairs = [(key.encode(), value.encode()) for key, value in sorted(messages.items())]
    n = len(pairs)
    tables, strings, at = [], b"", 28 + 16 * n
    for column in (0, 1):
        for pair in pairs:
            tables.append(struct.pack(f"{order}2I", len(pair[column]), at + len(strings)))
            strings += pair[column] + b"\0"
    head = struct.pack(f"{order}7I", 0x950412DE, 0, n, 28, 28 + 8 * n, 0, 0)
    return head + b"".join(tables) + strings


@pytest.mark.parametrize("order", ["<", ">"])
def test_messages_contexts_and_plurals(tmp_path: Path, order: str) -> None:
    data = catalogue(MESSAGES, order)
    (tmp_path / "a.mo").write_bytes(data)
    found = sorted(read_catalogue(tmp_path / "a.mo"))
    assert found == [("%d files", "%d 个文件"), ("Open", "打开"), ("Open", "打开文件")]
    reference = gettext.GNUTranslations(io.BytesIO(data))
    assert reference.ngettext("one file", "%d files", 2) == dict(found)["%d files"]
    assert {reference.gettext("Open"), reference.pgettext("menu", "Open")} == {"打开", "打开文件"}


@pytest.mark.parametrize("content", [b"", b"text of another kind, long enough", catalogue(MESSAGES)[:80]])
def test_a_broken_catalogue_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mo").write_bytes(content)
    with pytest.raises(CorruptError):
        list(read_catalogue(tmp_path / "a.mo"))
