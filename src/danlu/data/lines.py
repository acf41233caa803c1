"""Reads the lines of a text file: compressed or not, in the encoding that it is in, in bounded memory.

No line is lost: one that cannot be decoded, or is longer than `MAX_LINE` bytes, comes with a problem and the text as
far as it can be read.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa

from danlu.core.errors import DataError
from danlu.data.encoding import decode_line, detect_encoding

__all__ = ["CLIP", "MAX_LINE", "Line", "read_lines"]

MAX_LINE = 1 << 20
"""The longest line that is read whole, in bytes."""
CLIP = 1000
"""How much of a record with a problem is kept, in characters."""
SAMPLE = 1 << 20
"""How much of a file its encoding is told from, in bytes."""
CHUNK = 1 << 18
"""How much is read at once, in bytes; well under MAX_LINE, so that few blocks are past it."""


class Line(NamedTuple):
    """One line of a text file, without its end."""

    number: int
    """Counted from 1."""
    text: str
    problem: str | None
    """`undecodable`, `line_too_long` or None."""


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a text file, which end in a line feed, with or without a carriage return before it.

    Memory: a few times `MAX_LINE`, whatever the length of the file and of its lines.

    Args:
        path: The file; `.gz` and `.zst` are read decompressed.

    Raises:
        DataError: It is empty, cannot be opened, or its compressed stream is broken.
    """
    with _opened(path) as stream:
        sample = stream.read(SAMPLE)
        if not sample:
            raise DataError("the file is empty", where=str(path), advice="fill it or leave it out of data.source")
        encoding = detect_encoding(sample)
        chunks = _chunks(sample, stream)
        if encoding.startswith("utf-16"):
            chunks, encoding = _from_utf16(chunks, encoding), "utf-8"
        elif encoding == "utf-8-sig":
            encoding = "utf-8"  # the mark is dropped below, from the first line alone
        number = 0
        for block in _blocks(chunks):
            for text, problem in _decoded(block, encoding):
                number += 1
                yield Line(number, text.removeprefix("\ufeff") if number == 1 else text, problem)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The decompressed bytes of a file; what can go wrong with them becomes a DataError."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as unzipped:
                yield cast(BinaryIO, unzipped)
        elif path.suffix == ".zst":
            with path.open("rb") as file, pa.CompressedInputStream(file, "zstd") as stream:
                yield stream
        else:
            with path.open("rb") as file:
                yield file
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        # The system's errors have a strerror; those of gzip and zstd about their content have none.
        what = getattr(error, "strerror", None) or f"the compressed file is broken or cut short: {error}"
        raise DataError(what, where=str(path)) from error


def _chunks(first: bytes, stream: BinaryIO) -> Iterator[bytes]:
    yield first
    while chunk := stream.read(CHUNK):
        yield chunk


def _from_utf16(chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The same text as UTF-8. Half a surrogate pair, or half a character at the end, makes its line undecodable."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogatepass")
    if decoder.getstate()[0]:
        yield b"\xff"


def _blocks(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Blocks of whole lines. A line past `MAX_LINE` loses what comes after, save for its end."""
    rest = b""
    for chunk in chunks:
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = chunk[end:]
        elif len(rest) <= MAX_LINE:
            rest += chunk
    if rest:
        yield rest


def _decoded(block: bytes, encoding: str) -> Iterator[tuple[str, str | None]]:
    """The lines of one block with their problem: at once where all is well, one by one where not."""
    if len(block) <= MAX_LINE:  # otherwise it may hold a line that is too long
        try:
            texts = block.decode(encoding).split("\n")
        except UnicodeDecodeError:
            pass
        else:
            if not texts[-1]:
                texts.pop()
            for text in texts:
                yield text.removesuffix("\r"), None
            return
    raws = block.split(b"\n")
    if not raws[-1]:
        raws.pop()
    for raw in raws:
        whole = raw.removesuffix(b"\r")
        if len(whole) > MAX_LINE:
            yield whole[: 4 * CLIP].decode(encoding, errors="ignore")[:CLIP], "line_too_long"
            continue
        decoded = decode_line(whole, encoding)
        if decoded is None:
            yield whole.decode(encoding, errors="replace")[:CLIP], "undecodable"
        else:
            yield decoded, None
