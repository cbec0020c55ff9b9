"""Pictures: image files as pixels; the only module that knows Pillow.

Only formats that Pillow decodes itself are read: no file, whatever its name says, starts another program.
As in torchvision, transparency is dropped, orientation in EXIF is not looked at, and of several frames the
first counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.data.inputs import Array
from onnxprune.data.preprocess import Size
from onnxprune.errors import DataError, RuntimeUnavailableError

#: Endings of files that are taken for images.
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000")
_DEEP = ("I", "F")  # modes of more than 8 bits a channel begin so

Geometry = Callable[[Size], tuple[Size, Size]]  # what an image is resized to, and what is cut out of it

MOST_PIXELS = 1 << 26  # of an image, as it is and as it is resized: 200 MB in memory


def require_pillow() -> None:
    """Say what is missing before any work.

    Raises:
        RuntimeUnavailableError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401  # to say at once, and clearly, that it is not there
    except ImportError as error:
        raise RuntimeUnavailableError(
            "reading images needs Pillow, which is not installed; pip install 'onnxprune[images]'"
        ) from error


def size_of(path: Path, geometry: Geometry) -> Size:
    """Height and width that an image comes out in, from the file's header alone.

    Raises:
        DataError: no image that can be read, one of more than 8 bits a channel, an enormous one, or one that
            is smaller than what is to be cut out of it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata; what matters is raised here
        with _opened(path) as image:
            return _checked(path, image, geometry)[1]


def pixels(path: Path, geometry: Geometry, *, grey: bool, interpolation: str) -> Array:
    """Pixels of the middle of a resized image, uint8 [height, width, 1 or 3].

    Raises:
        DataError: as for `size_of`, or the file is damaged.
    """
    from PIL.Image import Resampling

    with _opened(path) as image:
        resized, crop = _checked(path, image, geometry)
        if image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # what Pillow asks for, with a warning
        image = image.convert("L" if grey else "RGB")
        if (image.height, image.width) != resized:
            image = image.resize((resized.width, resized.height), Resampling[interpolation.upper()])
        top, left = (round((a - b) / 2) for a, b in zip(resized, crop, strict=True))
        if resized != crop:
            image = image.crop((left, top, left + crop.width, top + crop.height))
        return np.asarray(image, np.uint8).reshape(*crop, -1)


def _checked(path: Path, image: Any, geometry: Geometry) -> tuple[Size, Size]:
    """What the image is resized to and what is cut out of it."""
    resized, crop = geometry(Size(image.height, image.width))
    if resized.height < crop.height or resized.width < crop.width:
        raise DataError(
            f"{path}: {_words(resized)} pixels, the crop is {_words(crop)}; say in a preprocessing file what "
            "size it is resized to first"
        )
    if resized.height * resized.width > MOST_PIXELS:
        raise DataError(f"{path}: would be resized to {_words(resized)} pixels; remove it, or crop it before")
    return resized, crop


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.height * image.width > MOST_PIXELS:
                raise _too_large(path, _words(Size(image.height, image.width)) + " pixels")
            if image.mode.startswith(_DEEP):
                raise DataError(
                    f"{path}: more than 8 bits a channel (mode {image.mode}); convert it, or give arrays"
                )
            yield image
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many pixels") from error
    except MemoryError as error:
        raise _too_large(path, "more pixels than memory has room for") from error
    except Exception as error:  # Pillow's decoders raise a dozen unrelated classes for a damaged file
        reason = " ".join(str(error).replace(repr(str(path)), "it").split()) or type(error).__name__
        raise DataError(f"{path}: is no image that can be read ({reason}); repair or remove it") from error


def _too_large(path: Path, what: str) -> DataError:
    return DataError(f"{path}: {what}; an image has {MOST_PIXELS:,} at most; make it smaller or remove it")


def _words(size: Size) -> str:
    return f"{size.height}×{size.width}"
