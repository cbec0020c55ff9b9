"""The models and, for each, its data: calibration without labels, evaluation with labels where there are any.

Everything is drawn with one seed, and no sample is in both halves. Arrays are what the model is fed; their
keys are its input names, or `x` where it has only one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.common import ROOT, SHARED

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

_CIFAR_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_CIFAR_STD = np.array((0.229, 0.224, 0.225), np.float32)


@dataclass(frozen=True)
class Split:
    """Samples to calibrate on and others to measure on, and in a few words what they are.

    `labels` are those of the calibration samples, which only the paper's experiments may see.
    """

    calibration: Arrays
    evaluation: Arrays
    words: str
    labels: Array | None = None


@dataclass(frozen=True)
class Subject:
    """A model file and the function that draws its data with a seed."""

    path: Path
    split: Callable[[int], Split]


def mnist(seed: int, *, net: str, shape: tuple[int, ...]) -> Split:
    """The committed 1,000 training images and all 10,000 test images, pixel/255."""
    test = _arrays(SHARED / "mnist" / "mnist_test.npz")
    calibration = _arrays(ROOT / "calibration" / f"{net}.npz")
    images = (test["x"].astype(np.float32) / np.float32(255)).reshape(-1, *shape)
    words = "1,000 committed training images; 10,000 test images"
    evaluation = {"x": images, "labels": test["y"]}
    return Split({"x": calibration["input"]}, evaluation, words, calibration["labels"])


def cifar(seed: int, *, normalised: bool = True, count: int = 1000) -> Split:
    """`count` lossless training images and all 509 lossless test images, NCHW."""
    train = _arrays(SHARED / "cifar10" / "cifar10_train_lossless.npz")
    test = _arrays(SHARED / "cifar10" / "cifar10_test_lossless.npz")

    def prepared(pixels: Array) -> Array:
        images = pixels.astype(np.float32)
        if normalised:
            images = (images / np.float32(255) - _CIFAR_MEAN) / _CIFAR_STD
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    rows = np.random.default_rng(seed).choice(len(train["x"]), count, replace=False)
    words = f"{count:,} lossless training images; {len(test['x'])} lossless test images"
    evaluation = {"x": prepared(test["x"]), "labels": test["y"]}
    return Split({"x": prepared(train["x"][rows])}, evaluation, words, train["y"][rows])


def photos(seed: int, *, size: int, mean: float, scale: float) -> Split:
    """Half of the 500 sample photos each: centre crop 224, bilinear to `size`, (x − mean) / scale, NCHW."""
    from PIL.Image import open as open_image  # the one table that needs Pillow, which the package does not

    folder = SHARED / "imagenet_sample"
    entries = [line.split("\t") for line in (folder / "labels.txt").read_text().splitlines()]
    labels = np.array([int(label) for label, _ in entries])
    images = np.empty((len(entries), 3, size, size), np.float32)
    for row, (_, name) in enumerate(entries):
        pixels = cropped(open_image(folder / "images" / name).convert("RGB"), 224, size)
        images[row] = (pixels.transpose(2, 0, 1) - np.float32(mean)) / np.float32(scale)
    return _halves(seed, images, labels, len(images) // 2, "sample photos")


def cropped(image: Image, crop: int, size: int) -> Array:
    """The central `crop` pixels of `image`, resized to float32 [size, size, 3]."""
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    image = image.crop((left, top, left + crop, top + crop))
    if size != crop:
        from PIL.Image import Resampling

        image = image.resize((size, size), Resampling.BILINEAR)
    return np.asarray(image, np.float32)


def words(seed: int, *, calibration: int = 200) -> Split:
    """Rendered text lines [n,3,48,320], x/127.5 − 1; the labels are strings."""
    lines = _arrays(SHARED / "ocr_words" / "ocr_words.npz")
    return _halves(seed, _lines(lines["x"]), lines["label"], calibration, "rendered text lines")


def turned_words(seed: int) -> Split:
    """Text lines [n,3,48,192], every other one upside down: class 0 upright, 1 turned."""
    pixels = _arrays(SHARED / "ocr_words" / "ocr_words.npz")["x"][:, :, :192].copy()
    labels = np.arange(len(pixels)) % 2
    pixels[1::2] = pixels[1::2, ::-1, ::-1]
    return _halves(seed, _lines(pixels), labels, len(pixels) // 2, "text lines, half of them upside down")


def pages(seed: int) -> Split:
    """Six text lines a page [n,3,288,320], normalised as PaddleOCR's detector wants it; no labels."""
    pixels = _arrays(SHARED / "ocr_words" / "ocr_words.npz")["x"].reshape(-1, 288, 320)
    images = (pixels[..., None].astype(np.float32) / np.float32(255) - _CIFAR_MEAN) / _CIFAR_STD
    return _halves(seed, images.transpose(0, 3, 1, 2), None, len(images) // 2, "pages of six text lines")


def files(seed: int) -> Split:
    """Byte features of real files, int32 [n,2048], with their types; of equal ones, the first."""
    arrays = _arrays(SHARED / "magika_files" / "magika_files.npz")
    rows = np.sort(np.unique(arrays["x"], axis=0, return_index=True)[1])
    return _halves(seed, arrays["x"][rows].astype(np.int32), arrays["y"][rows], len(rows) // 2, "real files")


def tones(seed: int, *, count: int = 48) -> Split:
    """Synthetic notes, float32 [n,43844,1] at 22,050 Hz; no labels."""
    return _halves(seed, _notes(seed, count, 43844, 22050)[..., None], None, count // 2, "synthetic notes")


def voices(seed: int, *, frame: int, count: int = 256) -> Split:
    """Synthetic harmonic sound, `frame` samples at 16 kHz, the recurrent state of a first frame."""
    sound = _notes(seed, count, frame, 16000)
    state, rate = np.zeros((2, count, 128), np.float32), np.array(16000, np.int64)

    def feeds(part: slice) -> Arrays:
        return {"input": sound[part], "state": state[:, part], "sr": rate}

    half = count // 2
    return Split(feeds(slice(half)), feeds(slice(half, None)), f"{half} + {half} frames of synthetic sound")


def _notes(seed: int, count: int, length: int, rate: int) -> Array:
    """Three tones a clip, of random pitch (A2 to A6), onset, decay and loudness, with harmonics and noise."""
    generator = np.random.default_rng(seed)
    time = np.arange(length) / rate
    clips = 0.005 * generator.standard_normal((count, length))
    for clip in clips:
        for _ in range(3):
            pitch = 110 * 2 ** (generator.integers(0, 49) / 12)
            since = time - generator.uniform(0, 0.7 * time[-1])
            decay = np.exp(-generator.uniform(0.5, 4) * np.maximum(since, 0))
            partials = [k for k in range(1, 6) if pitch * k < rate / 2]
            harmonics = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in partials)
            clip += (since >= 0) * generator.uniform(0.05, 0.3) * decay * harmonics
    return clips.astype(np.float32)


def _lines(pixels: Array) -> Array:
    """Grey [n, h, w] as three equal channels [n, 3, h, w] in −1…1."""
    grey = pixels[:, None].astype(np.float32) / np.float32(127.5) - 1
    return np.repeat(grey, 3, axis=1)


def _halves(seed: int, x: Array, labels: Array | None, calibration: int, what: str) -> Split:
    """`calibration` samples drawn by the seed, and the rest, with its labels."""
    order = np.random.default_rng(seed).permutation(len(x))
    ours, theirs = np.sort(order[:calibration]), np.sort(order[calibration:])
    evaluation = {"x": x[theirs]} | ({} if labels is None else {"labels": labels[theirs]})
    seen = None if labels is None else labels[ours]
    return Split({"x": x[ours]}, evaluation, f"{len(ours)} + {len(theirs)} {what}", seen)


def _arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _shared(split: Callable[..., Split], **given: Any) -> Callable[[str], Subject]:
    return lambda name: Subject(SHARED / "models" / f"{name}.onnx", partial(split, **given))


def _committed(split: Callable[..., Split], **given: Any) -> Callable[[str], Subject]:
    return lambda name: Subject(ROOT / "models" / f"{name}.onnx", partial(split, net=name, **given))


_MOBILENET = {"mean": 127.5, "scale": 127.5}

_SUBJECTS: dict[str, Callable[[str], Subject]] = {
    "lenet_300_100": _committed(mnist, shape=(784,)),
    "lenet_5": _committed(mnist, shape=(1, 28, 28)),
    "resnet20_cifar10": _shared(cifar),
    "resnet20_cifar10_bn": _shared(cifar),
    "resnet56_cifar10": _shared(cifar),
    "vgglike_cifar10": _shared(cifar, normalised=False),
    "mobilenetv1_025_128": _shared(photos, size=128, **_MOBILENET),
    "mobilenetv1_050_160": _shared(photos, size=160, **_MOBILENET),
    "mobilenetv2_100_224": _shared(photos, size=224, **_MOBILENET),
    "efficientnet_lite0_224_bn": _shared(photos, size=224, mean=127, scale=128),
    "ch_PP-OCRv4_rec_infer": _shared(words),
    "ch_PP-OCRv4_det_infer": _shared(pages),
    "ch_ppocr_mobile_v2.0_cls_infer": _shared(turned_words),
    "magika_standard_v3_3": _shared(files),
    "basic_pitch_nmp": _shared(tones),
    "silero_vad_16k_op15": _shared(voices, frame=576),
    "silero_vad_op18_ifless": _shared(voices, frame=576),
}

SUBJECTS = {name: make(name) for name, make in _SUBJECTS.items()}
