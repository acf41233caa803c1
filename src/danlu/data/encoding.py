"""Bytes to text: which encoding a file is in, one line at a time where a line is bad, and the repair of mojibake.

Known: UTF-8 with or without a byte-order mark, UTF-16 with one, and GB18030 (with it GBK and GB2312). Everything else
is reported, never guessed at.
"""

from __future__ import annotations

import codecs
import re

import pyarrow as pa
import pyarrow.compute as pc

from danlu.core.errors import DataError
from danlu.data.suspects import suspects

__all__ = ["decode", "decode_line", "detect_encoding", "repair_mojibake", "repair_texts"]

_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_COMMON = frozenset(
    "的一是不了在人有我他这这個个們们中来來上大为為和国國地到以说說时時要就出会會可也你对對生能而子那得于於着著下自之年过過发發"
    "后後作里裡好很没沒都还還去看书書，。！？、"
)
_GB_PAIR = re.compile(rb"[\x81-\xfe](?:([\x80-\xfe])|[\x30-\x7e])")


def detect_encoding(sample: bytes) -> str:
    """The encoding of a file, from its beginning.

    Args:
        sample: The first bytes of the file, a megabyte say; it may end inside a character.

    Returns:
        ``utf-8-sig`` or ``utf-16`` where a byte-order mark says so (a UTF-16 file must be decoded whole: its lines do
        not end at the byte 0x0A); ``gb18030`` where the bytes read as Chinese in it and not as UTF-8; otherwise
        ``utf-8``, whose bad lines are then for ``decode_line`` to report.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return name
    lines = [line for line in sample.splitlines() if not line.isascii()]
    if len(lines) > 1 and not sample.endswith((b"\n", b"\r")):
        lines.pop()  # it may end inside a character
    if not lines:
        return "utf-8"
    as_utf8 = sum(decode_line(line, "utf-8") is not None for line in lines)
    if len(lines) == 1 and as_utf8 == 0:
        as_utf8 = _reads(lines[0], "utf-8")
    if 2 * as_utf8 >= len(lines):
        return "utf-8"
    return "gb18030" if _is_gb18030(b"\n".join(lines)) else "utf-8"


def _reads(raw: bytes, encoding: str) -> bool:
    """Whether bytes decode, a last unfinished character allowed."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(raw, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _is_gb18030(raw: bytes) -> bool:
    """Whether most lines decode and what they say looks Chinese.

    Western 8-bit text also decodes: an accented letter takes the plain one after it for its second byte. In Chinese
    most second bytes are above 0x7F. Other double-byte encodings decode to rare characters, where Chinese has a few
    very common ones.
    """
    lines = raw.split(b"\n")
    good = [line for line in lines if _reads(line, "gb18030")]
    if 10 * len(good) < 9 * len(lines):
        return False
    seconds = _GB_PAIR.findall(b"\n".join(good))
    if 2 * sum(bool(second) for second in seconds) < len(seconds):
        return False
    text = [char for char in b"\n".join(good).decode("gb18030", errors="ignore") if not char.isascii()]
    return len(text) < 50 or sum(char in _COMMON for char in text) >= 0.05 * len(text)


def decode_line(raw: bytes, encoding: str) -> str | None:
    """One line as text.

    Args:
        raw: The line's bytes; for ``utf-16`` a whole text.
        encoding: From ``detect_encoding``.

    Returns:
        The text, or None where the bytes are not valid in that encoding. A byte-order mark is dropped.
    """
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        return None


def decode(raw: bytes) -> tuple[str, str]:
    """A whole file as text.

    Args:
        raw: The file's bytes.

    Returns:
        The text and the encoding it was in.

    Raises:
        DataError: The bytes are in no encoding known here.
    """
    encoding = detect_encoding(raw)
    text = decode_line(raw, encoding)
    if text is None:
        raise DataError(
            f"the bytes are not valid {encoding}",
            advice="save the file as UTF-8; other encodings known here: UTF-16 with a byte-order mark, GB18030",
        )
    return text, encoding


# UTF-8 once read as cp1252: each character stands for the byte it was, the five bytes cp1252 lacks for themselves.
_AS_BYTE = {ord(bytes([byte]).decode("cp1252", errors="replace")): byte for byte in range(0x80, 0xA0)}
_AS_BYTE.pop(0xFFFD)
_SPECIALS = "".join(map(chr, _AS_BYTE))
# UTF-8 of Chinese once read as GBK: its first two bytes have become one of these characters.
_FIRST_BYTES = bytes(
    b for lead in (0xE2, *range(0xE3, 0xEA), 0xEF) for trail in range(0x80, 0xC0) for b in (lead, trail)
)
_FIRST_AS_GBK = _FIRST_BYTES.decode("gbk", errors="ignore")
_SUSPECT = f"^[\\x00-\\x7f]*(?:[\u00c2-\u00f4][\u0080-\u00bf{_SPECIALS}]|[{_FIRST_AS_GBK}])"
_ACCENTED = re.compile(
    "[\u0000-\u017f\u2010-\u206f\u20a0-\u20bf\u2100-\u27bf\u3000-\u9fff\uff00-\uffef\U0001f300-\U0001faff]+"
)
_CHINESE = re.compile("[\u0000-\u007f\u2010-\u206f\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]+")


def repair_mojibake(text: str) -> str | None:
    """Text whose UTF-8 was once read as Latin-1, cp1252 or GBK, as it was meant.

    Only where it is unambiguous: every character must turn back into bytes, these must be strict UTF-8, and the result
    must read better. As a Latin text that means letters of western Europe, signs or Chinese in place of pairs of signs;
    as Chinese it means that at least two characters appear and all are in GB2312, where some were not.

    Returns:
        The repaired text, or None where there is nothing to repair.
    """
    if text.isascii():
        return None
    try:
        repaired = text.translate(_AS_BYTE).encode("latin-1").decode("utf-8")
        return repaired if _ACCENTED.fullmatch(repaired) else None
    except UnicodeError:
        pass
    try:
        repaired = text.encode("gb18030").decode("utf-8")
    except UnicodeError:
        return None
    better = _is_gb2312(repaired) and not _is_gb2312(text)
    n_chinese = sum("\u4e00" <= char <= "\u9fff" for char in repaired)
    return repaired if better and n_chinese >= 2 and _CHINESE.fullmatch(repaired) else None


def _is_gb2312(text: str) -> bool:
    try:
        text.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True


def repair_texts(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """``repair_mojibake`` of a batch.

    Args:
        texts: Strings; nulls stay null.

    Returns:
        The texts, and for each whether it was repaired.
    """
    suspect_n = suspects(texts, _SUSPECT)
    if not suspect_n.any():
        return texts, pa.array(suspect_n)
    repaired = [
        repair_mojibake(text) if suspect else None
        for text, suspect in zip(texts.to_pylist(), suspect_n.tolist(), strict=True)
    ]
    found = pa.array(repaired, type=pa.string())
    return pc.coalesce(found, texts), pc.is_valid(found)
