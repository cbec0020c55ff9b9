"""Preprocess: what becomes of an image before a model sees it, as a record, read from a file or by name.

An image is resized, its middle is cut out, and its pixels 0..255 are mapped to `range`; then `mean` is
subtracted and `std` divided by, each of them one number or one for every channel, in the channels' `order`.
Sizes are heights and widths in pixels. What is None is seen from the input of the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from onnxprune.errors import UsageError

_FILE_BYTES = 1 << 12  # more is no preprocessing file; PyYAML takes minutes for what is nested deeply

Pixels = Annotated[int, Field(strict=True, ge=1, le=1 << 14)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class Size(NamedTuple):
    """Pixels of an image."""

    height: int
    width: int


class Preprocess(BaseModel):
    """How pixels become numbers; the defaults give 0..1, of images brought to the size the model takes.

    `resize`: the length of the shorter side, or (height, width); `crop`: the side of a square, or (height,
    width). Where `resize` is None and `crop_share` is not, the image is resized so that the crop is that
    share of its tighter side. With neither nor a `crop`, it is stretched to the size the model takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    resize: Pixels | tuple[Pixels, Pixels] | None = None
    crop: Pixels | tuple[Pixels, Pixels] | None = None
    crop_share: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    range: tuple[Number, Number] = (0.0, 1.0)
    mean: Number | tuple[Number, ...] = 0.0
    std: Positive | tuple[Positive, ...] = 1.0
    order: Literal["rgb", "bgr"] = "rgb"
    grey: Annotated[bool, Field(strict=True)] | None = None
    layout: Literal["nchw", "nhwc"] | None = None

    @field_validator("range")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("the first number must be below the second, such as [0, 1]")
        return value

    @model_validator(mode="after")
    def _one_resize(self) -> Self:
        if self.resize is not None and self.crop_share is not None:
            raise ValueError("give one of resize and crop_share, not both")
        return self

    def __str__(self) -> str:
        known = next((name for name, preset in PRESETS.items() if preset == self), None)
        given = self.model_dump(mode="json", exclude_defaults=True)
        return known or ", ".join(f"{name} {value}" for name, value in given.items())

    def geometry(self, image: Size, taken: Size | None) -> tuple[Size, Size]:
        """What an `image` is resized to, and the size cut out of it; `taken` is the model's, if fixed."""
        crop = _square(self.crop) or taken
        if isinstance(self.resize, int):
            resized = _covering(image, Size(self.resize, self.resize))
        elif self.resize is not None:
            resized = Size(*self.resize)
        elif self.crop_share is not None and crop is not None:
            resized = _covering(image, Size(*(round(side / self.crop_share) for side in crop)))
        elif self.crop is None and taken is not None:
            resized = taken
        else:
            resized = image
        return resized, crop or resized

    def one_size(self, taken: Size | None) -> Size | None:
        """The size that all images come out in; None where each keeps its own."""
        square = Size(1, 1)
        fixed = self.crop is not None or taken is not None or isinstance(self.resize, tuple)
        return self.geometry(square, taken)[1] if fixed else None


#: What is known by name.
PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), crop_share=0.875),
    "tensorflow": Preprocess(range=(-1.0, 1.0)),
    "unit": Preprocess(range=(0.0, 1.0)),
    "none": Preprocess(range=(0.0, 255.0)),
}


def preprocessing(given: str | Path | Preprocess) -> Preprocess:
    """The record that `given` names: one of `PRESETS`, or a `.json`, `.yaml` or `.yml` file with its fields.

    Raises:
        UsageError: no such name or file, or one that does not hold such a record; says which field.
    """
    if isinstance(given, Preprocess):
        return given
    if str(given) in PRESETS:
        return PRESETS[str(given)]
    path = Path(given)
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None or not path.is_file():
        known = f"one of {', '.join(PRESETS)}, or a {', '.join(_PARSERS)} file"
        raise UsageError(
            f"--preprocess {given}: there is no such {'preset' if parse is None else 'file'}; give {known}"
        )
    fields = _read(path, parse)
    try:
        return Preprocess(**fields)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        problem = max(found, key=lambda entry: len(entry["loc"]))  # the nearest of what a field may be
        where = str(problem["loc"][0]) if problem["loc"] else "the fields"
        what = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            what = f"there is no such field, only {', '.join(Preprocess.model_fields)}"
        raise UsageError(f"--preprocess {path}: {where}: {what}; see docs/data.md") from error


def _read(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    try:
        if path.stat().st_size > _FILE_BYTES:
            raise UsageError(f"--preprocess {path}: is too long for a preprocessing file; give another")
        fields = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--preprocess {path}: cannot be read ({reason}); write it again") from error
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise UsageError(
            f"--preprocess {path}: holds no fields; give some of {', '.join(Preprocess.model_fields)}"
        )
    return fields


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


_PARSERS: dict[str, Callable[[str], Any]] = {".json": json.loads, ".yaml": _yaml, ".yml": _yaml}


def _square(size: int | tuple[int, int] | None) -> Size | None:
    if size is None:
        return None
    return Size(size, size) if isinstance(size, int) else Size(*size)


def _covering(image: Size, least: Size) -> Size:
    """The smallest size of the image's shape, as torchvision rounds it, that has `least` within."""
    if least.height * image.width >= least.width * image.height:
        return Size(least.height, max(least.width, least.height * image.width // image.height))
    return Size(max(least.height, least.width * image.height // image.width), least.width)
