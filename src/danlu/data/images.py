"""One picture: from a file to numbers, in the size and the channels that a dataset has.

Numbers are uint8 ``[C, Y, X]``: one channel where a picture is grey, three (red, green, blue) where it has colours.
"""

from __future__ import annotations

import base64
import io
import struct
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from danlu.core.errors import DataError
from danlu.data.clean import CleanConfig

__all__ = [
    "SUFFIXES",
    "ImageSize",
    "Pixels",
    "png_address",
    "read_image",
    "shown_size",
    "standard_image",
    "to_standard",
]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What a file is called that is opened as a picture."""

ImageSize = tuple[int, int, int]
"""Channels, height, width."""
Pixels = NDArray[np.uint8]

_GREY = ("1", "L", "LA", "La")
_DEEP = ("I", "F")
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError, Warning)
"""What decoders are known to raise on bytes that are no picture."""


def read_image(path: Path) -> Pixels:
    """Decodes a picture as it is: upright as its EXIF data says, transparent parts white, the first of an animation.

    Args:
        path: The file.

    Returns:
        uint8 ``[C, Y, X]``, one channel or three.

    Raises:
        DataError: It is no picture, is broken or far too large, or has more than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which change nothing here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                picture = ImageOps.exif_transpose(opened)
            mode = picture.mode
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            pixels = _channels_first(picture.convert("L" if mode in _GREY else "RGB"))
    except _BROKEN as error:
        said = "no format known here" if isinstance(error, UnidentifiedImageError) else str(error)
        what = f"the picture cannot be read: {getattr(error, 'strerror', None) or said}"
        raise DataError(what, where=str(path)) from error
    if mode.startswith(_DEEP):
        what = f"the picture has more than 8 bits a channel (mode {mode})"
        raise DataError(what, where=str(path), advice="save it with 8 bits a channel")
    return pixels


def to_standard(pixels: Pixels, clean: CleanConfig) -> Pixels:
    """A picture in the size and the channels that a dataset asks for; as it is where it asks for none.

    A picture is stretched to its new size: its shape is not kept.
    """
    channels = clean.channels or len(pixels)
    height, width = clean.image_size or pixels.shape[1:]
    if pixels.shape == (channels, height, width):
        return pixels
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    picture = picture.convert("L" if channels == 1 else "RGB")
    return _channels_first(picture.resize((width, height), Image.Resampling.BILINEAR))


def standard_image(path: Path, image_size: ImageSize, clean: CleanConfig) -> Pixels:
    """A picture as training saw them. What is asked of a model goes through it.

    Args:
        path: The file.
        image_size: Channels, height and width of the training pictures.
        clean: How these were made; another size is stretched to theirs only if they were resized too.

    Returns:
        uint8 ``[C, Y, X]`` of that size.

    Raises:
        DataError: It is no picture, or of another size.
    """
    channels, *_ = image_size
    pixels = to_standard(read_image(path), clean.model_copy(update={"channels": channels}))
    if pixels.shape != image_size:
        raise DataError(
            f"the picture is {shown_size(pixels.shape)}, and the model takes {shown_size(image_size)}",
            where=str(path),
            advice=f"resize or crop it, or train with data.clean.image_size=[{image_size[1]}, {image_size[2]}], "
            "which then resizes every picture",
        )
    return pixels


def shown_size(shape: tuple[int, ...]) -> str:
    """``28 x 28 grey``: height, width, channels."""
    channels, height, width = shape
    return f"{height} x {width} {'grey' if channels == 1 else 'coloured'}"


def _channels_first(picture: Image.Image) -> Pixels:
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def png_address(pixels: bytes, size: ImageSize) -> str:
    """A picture as a ``data:`` address that a page can show.

    Args:
        pixels: uint8 in the order C, Y, X.
        size: Channels, height, width.
    """
    channels_last = np.frombuffer(pixels, np.uint8).reshape(size).transpose(1, 2, 0)
    written = io.BytesIO()
    Image.fromarray(channels_last.squeeze(2) if size[0] == 1 else channels_last).save(written, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
