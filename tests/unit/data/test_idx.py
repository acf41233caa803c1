from __future__ import annotations

import contextlib
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from danlu.core.errors import DataError
from danlu.data.idx import is_idx, is_labels, labels_beside, read_idx


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("shape", [(5, 3, 4), (7,), (0, 3, 4)])
@pytest.mark.parametrize("name", ["x-idx-ubyte", "x-idx-ubyte.gz"])
def test_what_was_written_is_read(shape: tuple[int, ...], name: str, tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = idx_bytes(array)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = read_idx(tmp_path / name)
    assert found.shape == shape
    assert (found == array).all()


GOOD = idx_bytes(np.zeros((2, 3, 3), np.uint8))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "it begins with nothing"),
        (b"\0\0\x0d\x03" + GOOD[4:], "it begins with 00 00 0d 03"),
        (b"\0\0\x08\x02" + GOOD[4:], "00 00 08 02"),
        (b"\x89PNG\r\n", "89 50 4e 47"),
        (GOOD[:9], "its header is cut short"),
        (GOOD[:-1], "its header says 2 x 3 x 3, and 17 bytes follow"),
        (GOOD + b"\0", "and 19 bytes follow"),
    ],
)
def test_what_is_no_such_file_is_refused(data: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "a-idx3-ubyte").write_bytes(data)
    with pytest.raises(DataError, match=what) as found:
        read_idx(tmp_path / "a-idx3-ubyte")
    assert found.value.where == str(tmp_path / "a-idx3-ubyte")


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("idx") / "a-idx3-ubyte"
    for content, name in ((data, path), (b"\0\0\x08\x03" + data, path), (data, path.with_suffix(".gz"))):
        name.write_bytes(content)
        with contextlib.suppress(DataError):
            read_idx(name)


def test_names() -> None:
    names = ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte.gz", "images.idx3-ubyte", "x.idx", "idx-notes.txt"]
    assert [is_idx(Path(name)) for name in names] == [True, True, True, True, False]
    assert [is_labels(Path(name)) for name in names] == [False, True, False, False, False]
    assert labels_beside(Path("a/train-images-idx3-ubyte.gz")) == Path("a/train-labels-idx1-ubyte.gz")
    assert labels_beside(Path("a/train-images.idx")) == Path("a/train-labels.idx")
