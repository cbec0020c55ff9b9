"""Preprocessing: files are read strictly, sizes are torchvision's, numbers are plain arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_inputs import inputs

from onnxprune import Images
from onnxprune.data import PRESETS, Preprocess, open_data, preprocessing
from onnxprune.data.preprocess import Size
from onnxprune.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image")

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def picture(path: Path, height: int, width: int, seed: int = 0) -> Any:
    """A smooth coloured image, saved without loss."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    image = small.resize((width, height), Image.Resampling.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def numbers(folder: Path, how: Any, want: str) -> np.ndarray:
    return open_data(Images(folder, how), inputs(want)).array(want.split()[-1])


# -- arithmetic


def test_imagenet_is_what_torchvision_s_examples_do(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", 300, 400)
    # Resize(256), CenterCrop(224), ToTensor, Normalize, written out: 256·400/300 = 341, (341 − 224)/2 = 58
    resized = image.resize((341, 256), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float64)[16 : 16 + 224, 58 : 58 + 224]
    want = ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1)
    got = numbers(tmp_path, "imagenet", "float[batch,3,224,224] x")
    assert got.dtype == np.float32
    # float32 has 24 bits; the numbers are below 3
    np.testing.assert_allclose(got[0], want, rtol=0, atol=3 * 2**-24)


@pytest.mark.parametrize(
    ("name", "of"),
    [
        ("unit", lambda pixels: pixels / 255),
        ("tensorflow", lambda pixels: pixels / 127.5 - 1),
        ("none", lambda pixels: pixels),
    ],
)
def test_presets_stretch_to_the_size_of_the_model(tmp_path: Path, name: str, of: Any) -> None:
    image = picture(tmp_path / "a.png", 30, 50)
    pixels = np.asarray(image.resize((16, 24), Image.Resampling.BILINEAR), np.float64)
    got = numbers(tmp_path, name, "float[batch,24,16,3] x")
    np.testing.assert_allclose(got[0], of(pixels), rtol=2**-23, atol=2**-23)  # rounded once to float32


def test_every_field(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", 40, 30)
    how = Preprocess(
        resize=(20, 26),
        crop=(10, 13),
        interpolation="nearest",
        range=(0, 255),
        mean=(103.94, 116.78, 123.68),
        std=(57.1, 57.2, 57.3),
        order="bgr",
        layout="nhwc",
    )
    pixels = np.asarray(image.resize((26, 20), Image.Resampling.NEAREST), np.float64)[5:15, 6:19, ::-1]
    want = (pixels - how.mean) / how.std
    got = numbers(tmp_path, how, "float[batch,h,w,c] x")
    np.testing.assert_allclose(got[0], want, rtol=2**-23, atol=2**-23)  # rounded once to float32


def test_grey_is_seen_from_the_channels_and_can_be_said(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", 8, 8)
    grey = np.asarray(image.convert("L"), np.float32)
    assert np.array_equal(numbers(tmp_path, "none", "float[batch,1,8,8] x")[0, 0], grey)
    said = numbers(tmp_path, Preprocess(grey=True, range=(0, 255)), "float[batch,c,8,8] x")
    assert np.array_equal(said[0, 0], grey) and said.shape == (1, 1, 8, 8)
    assert numbers(tmp_path, "none", "float[batch,c,8,8] x").shape == (1, 3, 8, 8)


def test_pixels_as_they_are_go_into_integers(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png", 8, 8)
    got = numbers(tmp_path, "none", "uint8[batch,8,8,3] x")
    assert got.dtype == np.uint8 and np.array_equal(got[0], np.asarray(image))
    with pytest.raises(
        DataError, match=r"numbers from 0 to 1, which the input 'x' uint8.* --preprocess none"
    ):
        numbers(tmp_path, "unit", "uint8[batch,8,8,3] x")


@pytest.mark.parametrize(
    ("how", "taken", "resized", "crop"),
    [
        ({}, (6, 8), (6, 8), (6, 8)),  # stretched
        ({}, None, (100, 150), (100, 150)),  # as it is
        ({"resize": 50}, None, (50, 75), (50, 75)),
        ({"resize": 50}, (32, 32), (50, 75), (32, 32)),
        ({"resize": (9, 9)}, (9, 9), (9, 9), (9, 9)),
        ({"crop": 64}, (64, 64), (100, 150), (64, 64)),
        ({"crop_share": 0.875}, (224, 224), (256, 384), (224, 224)),
        ({"crop_share": 0.5}, (10, 100), (133, 200), (10, 100)),  # width is the tighter side
        ({"crop_share": 0.5, "crop": 20}, None, (40, 60), (20, 20)),
        ({"crop_share": 0.5}, None, (100, 150), (100, 150)),
    ],
)
def test_sizes(how: Any, taken: Any, resized: Any, crop: Any) -> None:
    got = Preprocess(**how).geometry(Size(100, 150), None if taken is None else Size(*taken))
    assert got == (resized, crop)


def test_a_share_of_no_size(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 8, 8)
    with pytest.raises(DataError, match="leaves height and width open; say both resize and crop"):
        numbers(tmp_path, "imagenet", "float[batch,3,h,w] x")


# -- files


def test_the_example_of_the_documentation_has_every_field(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "p.yaml").write_text(example)
    got = preprocessing(tmp_path / "p.yaml")
    for field in ("mean", "std", "range", "order"):
        assert getattr(got, field) == getattr(PRESETS["imagenet"], field)
    known = {line.lstrip("# ").partition(":")[0] for line in example.splitlines() if ":" in line}
    assert known == set(Preprocess.model_fields)


def test_json_and_yaml_say_the_same(tmp_path: Path) -> None:
    fields = {"resize": 256, "crop": [224, 192], "mean": [1, 2.5, 3], "std": 58.0, "range": [0, 255]}
    (tmp_path / "p.json").write_text(json.dumps(fields))
    (tmp_path / "p.yaml").write_text(
        "resize: 256\ncrop: [224, 192]\nmean: [1, 2.5, 3]\nstd: 58.0  # all\nrange: [0, 255]\n"
    )
    want = Preprocess(resize=256, crop=(224, 192), mean=(1, 2.5, 3), std=58.0, range=(0, 255))
    assert preprocessing(tmp_path / "p.json") == preprocessing(str(tmp_path / "p.yaml")) == want


def test_presets_are_known_by_name() -> None:
    assert {name: preprocessing(name) for name in PRESETS} == PRESETS
    assert {str(preset) for preset in PRESETS.values()} >= {"imagenet", "tensorflow", "none"}


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size: 224", "size: there is no such field, only resize, crop, "),
        ("resize: big", "resize: "),
        ("resize: 0", "resize: .* greater than or equal to 1"),
        ("resize: 224.0", "resize: "),
        ("std: [1, 0, 1]", "std: .* greater than 0"),
        ("mean: .nan", "mean: .* finite"),
        ("mean: '0.5'", "mean: "),
        ("range: [1, 0]", "range: the first number must be below the second"),
        ("layout: hwc", "layout: .*'nchw' or 'nhwc'"),
        ("grey: 1", "grey: "),
        ("{resize: 9, crop_share: 0.5}", "give one of resize and crop_share"),
        ("[1, 2]", "holds no fields"),
        ("", "holds no fields"),
        ("1: 2", "holds no fields"),
        ("resize: [", "cannot be read"),
        ("!!python/object/apply:os.system ['false']", "cannot be read .*could not determine a constructor"),
        ("[" * 1500, "cannot be read"),
        (" " * 5_000, "too long"),
        (BOMB, "there is no such field"),
    ],
)
def test_files_that_are_no_preprocessing(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        preprocessing(path)
    assert str(caught.value).startswith(f"--preprocess {path}: ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "imagenett",
            "no such preset; give one of imagenet, tensorflow, unit, none, or a .json, .yaml, .yml file",
        ),
        ("missing.yaml", "no such file"),
    ],
)
def test_names_of_nothing(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        preprocessing(name)


def test_numbers_for_other_channels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 8, 8)
    with pytest.raises(DataError, match=r"3 numbers as mean, the images for 'x' .* have 1 channel;"):
        numbers(tmp_path, "imagenet", "float[batch,1,8,8] x")


@pytest.mark.parametrize("want", ["float[batch,784] x", "float[8,8] x", "float[2,3,batch,8] x"])
def test_inputs_that_take_no_images(tmp_path: Path, want: str) -> None:
    picture(tmp_path / "a.png", 8, 8)
    with pytest.raises(
        DataError, match=r"images are fed as \[batch,channels,height,width\], the model wants 'x'"
    ):
        numbers(tmp_path, "unit", want)
