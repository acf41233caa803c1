"""Decoding: channels, size, orientation, transparency, and everything that is no good picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig
from danlu.data.images import read_image, standard_image, to_standard

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOURED = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif", "pgm"])
def test_a_grey_picture_has_one_channel(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / f"a.{suffix}")
    found = read_image(tmp_path / f"a.{suffix}")
    # A gif has colours, whatever was put into it.
    assert (found == GREY).all()
    assert found.shape == ((3 if suffix == "gif" else 1), 5, 7)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_a_coloured_picture_has_three(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(COLOURED).save(tmp_path / f"a.{suffix}")
    found = read_image(tmp_path / f"a.{suffix}")
    assert found.dtype == np.uint8
    assert (found == COLOURED.transpose(2, 0, 1)).all()


def test_black_on_transparent_is_black_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png") == np.array([[0, 255], [255, 255]])).all()
    Image.fromarray(pixels).convert("LA").save(tmp_path / "b.png")
    assert read_image(tmp_path / "b.png").tolist() == [[[0, 255], [255, 255]]]


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png")[0] == np.rot90(GREY, -1)).all()


def test_one_bit_and_a_palette(tmp_path: Path) -> None:
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    assert (read_image(tmp_path / "a.png")[0] == np.where(GREY > 127, 255, 0)).all()
    Image.fromarray(COLOURED).quantize(64).save(tmp_path / "b.png")
    assert (read_image(tmp_path / "b.png") == COLOURED.transpose(2, 0, 1)).all()


def test_more_than_8_bits_would_be_cut_off_and_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 256).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits a channel") as found:
        read_image(tmp_path / "a.png")
    assert found.value.where == str(tmp_path / "a.png")


def test_what_cannot_be_read_says_so_without_the_path(tmp_path: Path) -> None:
    for name, content, what in (
        ("empty.png", b"", "no format known here"),
        ("words.jpg", b"no picture at all", "no format known here"),
        ("cut.png", _png()[:60], "cannot be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=what) as found:
            read_image(tmp_path / name)
        assert str(tmp_path) not in found.value.what
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.png")


def test_a_picture_made_to_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    for limit in (30, 10):  # past the limit it is suspected, past twice the limit refused by Pillow itself
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="exceeds limit of"):
            read_image(tmp_path / "a.png")


def _png(suffix: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(COLOURED).save(file, suffix)
    return file.getvalue()


@given(
    st.sampled_from(["png", "jpeg", "gif", "bmp", "tiff", "webp"]),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(1, 2000),
)
def test_damaged_bytes_are_a_picture_or_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(_png(suffix))
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path_factory.mktemp("images") / f"a.{suffix}"
    path.write_bytes(bytes(data[:length]))
    try:
        found = read_image(path)
    except DataError:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert len(found) in (1, 3)


def test_a_picture_is_fitted_on_request() -> None:
    pixels = COLOURED.transpose(2, 0, 1)
    assert to_standard(pixels, CleanConfig()) is pixels
    grey = to_standard(pixels, CleanConfig(channels=1))
    assert grey.shape == (1, 5, 7)
    # ITU-R 601: how bright the eye sees each colour; off by the rounding.
    assert np.abs(grey[0] - COLOURED @ np.array([0.299, 0.587, 0.114])).max() <= 1
    assert (to_standard(GREY[None], CleanConfig(channels=3)) == GREY).all()
    assert to_standard(pixels, CleanConfig(image_size=(28, 20))).shape == (3, 28, 20)
    flat = to_standard(np.full((1, 40, 60), 77, np.uint8), CleanConfig(image_size=(3, 2), channels=3))
    assert flat.tolist() == np.full((3, 3, 2), 77).tolist()
    # A picture made smaller is averaged, not thinned out: a fine chequerboard becomes grey.
    chequers = (255 * (np.indices((64, 64)).sum(axis=0) % 2)).astype(np.uint8)
    small = to_standard(chequers[None], CleanConfig(image_size=(8, 8)))
    assert np.abs(small.astype(int) - 128).max() <= 2


def test_what_is_asked_of_a_model_comes_in_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLOURED).save(path)
    assert (standard_image(path, (3, 5, 7), CleanConfig()) == COLOURED.transpose(2, 0, 1)).all()
    assert standard_image(path, (1, 5, 7), CleanConfig()).shape == (1, 5, 7)
    with pytest.raises(DataError, match="the picture is 5 x 7 grey, and the model takes 28 x 28 grey") as found:
        standard_image(path, (1, 28, 28), CleanConfig())
    assert found.value.where == str(path)
    assert "data.clean.image_size=[28, 28]" in str(found.value.advice)
    assert standard_image(path, (1, 28, 28), CleanConfig(image_size=(28, 28))).shape == (1, 28, 28)
