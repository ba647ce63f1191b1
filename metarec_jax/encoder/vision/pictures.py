"""Reading of pictures with Pillow: known formats alone, within limits, and prepared for a vision tower."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.vision.vision_config import Preparation

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""Formats that are read. Others, such as EPS, start programs or are rarely tested."""
MOST_BYTES = 64 << 20
"""Greatest size of the file of a picture."""
MOST_PIXELS = 50_000_000
"""Greatest number of pixels of a picture, which its header states: a small file can claim gigabytes."""
SMALL = 240
"""Length in pixels of the longer side of a small copy."""
_LONGEST = 64
"""Greatest ratio of the sides of a picture: a scaled side is at most so many times the tower's."""


class PictureError(MetarecError):
    """A picture that cannot be read; the message says why, and the caller where it is."""


def read_picture(data: bytes) -> Any:
    """Decode a picture.

    Args:
        data: its file.

    Returns:
        A PIL image in RGB, turned as its EXIF data says; the first frame of an animation.

    Raises:
        PictureError: the file is empty, too large, damaged, or of an unknown format.
        MetarecError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ModuleNotFoundError as error:
        raise MetarecError("pictures need Pillow: pip install 'metarec_jax[images]'") from error
    if not data:
        raise PictureError("the picture is empty")
    if len(data) > MOST_BYTES:
        raise PictureError(f"the picture has {len(data):,} bytes; it must have at most {MOST_BYTES:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on numbers of pixels below our limit, and on odd metadata
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > MOST_PIXELS:
                raise PictureError(
                    f"the picture has {width:,} x {height:,} pixels; it must have at most {MOST_PIXELS:,}"
                )
            if max(width, height) > _LONGEST * min(width, height):
                raise PictureError(
                    f"the picture has {width:,} x {height:,} pixels; one side must be at most {_LONGEST} times the "
                    "other"
                )
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
    except MetarecError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"the picture has far more than {MOST_PIXELS:,} pixels, the most that are read") from None
    except Image.UnidentifiedImageError:
        raise PictureError(f"this is no picture of a known format ({', '.join(FORMATS)})") from None
    except Exception as error:  # decoders of damaged files raise many kinds of errors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"the picture is damaged ({reason:.200})") from error


def prepare(image: Any, how: Preparation, size: int) -> Float[np.ndarray, "height width colours"]:
    """Scale, cut and standardise a picture for a vision tower.

    Args:
        image: from `read_picture`.
        how: preparation of the tower.
        size: height and width of the result, in pixels.

    Returns:
        float32 [size, size, 3].
    """
    width, height = image.size
    if how.shortest:
        short, long = min(width, height), max(width, height)
        scaled = (how.shortest, int(how.shortest * long / short))
        image = image.resize(scaled if width <= height else scaled[::-1], resample=how.resample)
        left, top = (image.size[0] - size) // 2, (image.size[1] - size) // 2
        image = image.crop((left, top, left + size, top + size))
    else:
        image = image.resize((size, size), resample=how.resample)
    pixels = np.asarray(image, np.float32) / np.float32(255)
    return (pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.deviation, np.float32)


def small_copy(image: Any) -> bytes:
    """Make a small copy of a picture, as a JPEG without metadata.

    Args:
        image: from `read_picture`; it is changed.

    Returns:
        The file.
    """
    image.thumbnail((SMALL, SMALL))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80, optimize=True)
    return out.getvalue()
