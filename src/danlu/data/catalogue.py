"""Reads compiled gettext catalogues (.mo), the files that hold a program's translated messages.

The format is a header, two tables of (length, offset) and the strings themselves; it is described in the GNU gettext
manual, "The Format of GNU MO Files". The standard library's reader is not used because it compiles the catalogue's
plural rule, an expression that comes from outside; here nothing of a catalogue is evaluated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from danlu.core.errors import CorruptError

__all__ = ["read_catalogue"]

MAGIC = 0x950412DE


def read_catalogue(path: Path) -> Iterator[tuple[str, str]]:
    """The messages of one catalogue with their translation, in the catalogue's order.

    A context is left out. A message with plural forms gives one pair: its English plural with the last form, the one
    for many (the only form that Chinese has). A message without a translation is left out.

    Args:
        path: A `.mo` file, in UTF-8 as every catalogue of today.

    Yields:
        (message, translation).

    Raises:
        CorruptError: It is no such file, or is cut short.
    """
    data = path.read_bytes()
    try:
        order = "<" if data[:4] == struct.pack("<I", MAGIC) else ">"
        magic, _, n_messages, at_messages, at_translations = struct.unpack_from(f"{order}5I", data)
        if magic != MAGIC:
            raise CorruptError("this is no .mo catalogue", where=str(path))
        for index in range(n_messages):
            message = _string(data, order, at_messages + 8 * index)
            translation = _string(data, order, at_translations + 8 * index)
            text = message.rpartition("\4")[2].rpartition("\0")[2]
            target = translation.rpartition("\0")[2]
            if text and target:  # the entry of the empty message is the catalogue's header
                yield text, target
    except (struct.error, UnicodeDecodeError) as error:
        raise CorruptError(f"the catalogue cannot be read: {error}", where=str(path)) from error


def _string(data: bytes, order: str, at: int) -> str:
    """The string that the table entry at `at` points to."""
    n_bytes, offset = struct.unpack_from(f"{order}2I", data, at)
    (raw,) = struct.unpack_from(f"{n_bytes}s", data, offset)
    return bytes(raw).decode("utf-8")
