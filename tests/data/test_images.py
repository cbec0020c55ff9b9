"""Folders of images: order, labels, laziness, and files that are damaged or hostile."""

from __future__ import annotations

import io
import struct
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_inputs import inputs

from onnxprune import Images
from onnxprune.data import Data, Preprocess, images, open_data, pictures
from onnxprune.errors import DataError, RuntimeUnavailableError, UsageError

Image = pytest.importorskip("PIL.Image")

IMAGE = "float[batch,3,4,5] image"


def save(path: Path, value: int, shape: tuple[int, ...] = (4, 5)) -> None:
    """An image of one colour, by which it is known."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), value, np.uint8)).save(path)


def opened(folder: Path, how: Any = "none", want: str = IMAGE, **options: Any) -> Data:
    return open_data(Images(folder, how), inputs(want), **options)


def values(data: Data) -> list[int]:
    return [int(value) for batch in data.batches() for value in batch.feeds["image"][:, 0, 0, 0]]


def labels(data: Data) -> list[int]:
    found = [batch.labels for batch in data.batches()]
    return np.concatenate([array for array in found if array is not None]).tolist()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded, in order."""
    found, lock, real = list[str](), threading.Lock(), images.pixels

    def counting(path: Path, *args: Any, **options: Any) -> Any:
        with lock:
            found.append(path.name)
        return real(path, *args, **options)

    monkeypatch.setattr(images, "pixels", counting)
    return found


# -- what is read


def test_images_come_in_the_order_of_their_paths_from_all_sub_folders(tmp_path: Path) -> None:
    for value, name in enumerate(["a/z.png", "a.PNG", "b/c/d.bmp", "b/c.webp", "é.tiff"]):
        save(tmp_path / name, 10 * value)
    for name in (".hidden.png", ".cache/x.png", "notes.txt"):
        save(tmp_path / "z.png", 0)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "z.png").rename(tmp_path / name)
    data = opened(tmp_path)
    names = ["a/z.png", "a.PNG", "b/c/d.bmp", "b/c.webp", "é.tiff"]
    want = [10 * names.index(name) for name in sorted(names, key=lambda name: tuple(name.split("/")))]
    assert values(data) == values(data) == want
    assert not data.labelled
    assert data.description == f"{tmp_path}: 5 samples, preprocessing none"


def test_sub_folders_are_classes_as_in_torchvision(tmp_path: Path) -> None:
    places = ["owl/b.png", "owl/deep/a.png", "cat/z.png", "Zebra/1.png", "10/x.png", "9/y.png"]
    for value, name in enumerate(places):
        save(tmp_path / name, value)
    data = opened(tmp_path)
    classes = sorted({name.split("/")[0] for name in places})  # what ImageFolder's find_classes does
    assert labels(data) == [classes.index(places[value].split("/")[0]) for value in values(data)]
    assert labels(data) == sorted(labels(data))
    assert "labelled by its sub-folders (0 = 10, 1 = 9, 2 = Zebra, … 4 = owl)" in data.description


@pytest.mark.parametrize("places", [["a/1.png", "2.png", "b/3.png"], ["only/1.png", "only/2.png"]])
def test_one_folder_or_images_beside_folders_are_no_classes(tmp_path: Path, places: list[str]) -> None:
    for name in places:
        save(tmp_path / name, 0)
    assert not opened(tmp_path).labelled


def test_labels_csv_in_the_folder_wins(tmp_path: Path) -> None:
    for value, name in enumerate(["a/1.png", "b/2.png", "b/3.png"]):
        save(tmp_path / name, value)
    (tmp_path / "labels.csv").write_text("path,label\nb/3.png,7\na/1.png,4\n")
    data = opened(tmp_path)
    assert (values(data), labels(data)) == ([2, 0], [7, 4])


def test_linked_folders_are_read_and_loops_are_not(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "a.png", 3)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    assert values(opened(tmp_path / "set")) == [3]


def test_images_that_keep_their_own_sizes_are_batched_by_size(tmp_path: Path) -> None:
    for value, shape in enumerate([(4, 5), (4, 5), (6, 3), (4, 5)]):
        save(tmp_path / f"{value}.png", value, shape)
    data = opened(tmp_path, want="float[batch,3,h,w] image")
    assert [batch.feeds["image"].shape for batch in data.batches()] == [
        (2, 3, 4, 5),
        (1, 3, 6, 3),
        (1, 3, 4, 5),
    ]
    assert values(data) == [0, 1, 2, 3]


def test_the_same_seed_draws_the_same_images(tmp_path: Path) -> None:
    for value in range(30):
        save(tmp_path / f"{value:02}.png", value)
    array = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 4, 5), np.uint8)
    for seed in (0, 1):
        drawn = open_data(array, inputs(IMAGE), samples=7, seed=seed)
        assert values(opened(tmp_path, samples=7, seed=seed)) == values(drawn)


# -- laziness


def test_images_are_decoded_when_their_batch_is_read_and_then_kept(
    tmp_path: Path, decoded: list[str]
) -> None:
    for value in range(10):
        save(tmp_path / f"{value}.png", value)
    data = opened(tmp_path, batch_size=4, samples=8)
    assert decoded == []
    batches = data.batches()
    next(batches)
    assert len(decoded) == 4
    assert len(list(batches)) == 1 and values(data) == values(data)
    assert sorted(decoded) == sorted({f"{value}.png" for value in values(data)})


def test_beyond_a_bound_images_are_decoded_again(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_KEPT_BYTES", 2 * 60)  # two images of 4·5·3 bytes
    for value in range(5):
        save(tmp_path / f"{value}.png", value)
    data = opened(tmp_path)
    assert values(data) == values(data) == [0, 1, 2, 3, 4]
    assert {name: decoded.count(name) for name in decoded} == {
        "0.png": 1, "1.png": 1, "2.png": 2, "3.png": 2, "4.png": 2
    }  # fmt: skip


def test_the_bound_can_be_lowered_and_what_is_left_is_told(tmp_path: Path, decoded: list[str]) -> None:
    for value in range(5):
        save(tmp_path / f"{value}.png", value)
    data = opened(tmp_path)
    assert data.hold(130) == 130  # two images of 4·5·3 bytes, and a bit
    assert values(data) == values(data) == [0, 1, 2, 3, 4]
    assert len(decoded) == 5 + 3 and data.hold(1 << 40) == 10
    assert (
        open_data(np.zeros((5, 3, 4, 5), np.uint8), inputs(IMAGE)).hold(100) == 0
    )  # nothing is read on demand


def test_rows_may_be_asked_for_in_any_order(tmp_path: Path) -> None:
    for value in range(6):
        save(tmp_path / f"{value}.png", value)
    part = opened(tmp_path).parts[0]
    rows = np.array([4, 0, 4, 2])
    for _ in range(2):  # decoded, then kept
        assert part.arrays["image"][(rows,)][:, 0, 0, 0].tolist() == rows.tolist()


# -- modes


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_8_bits_is_made_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "YCbCr") else "a.png")
    image = Image.fromarray(np.full((4, 5, 3), 255, np.uint8)).convert(mode)
    image.save(path)
    assert values(opened(tmp_path)) == [255]


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((4, 5, 3), 204, np.uint8)).convert("P")
    image.save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert values(opened(tmp_path)) == [204]


@pytest.mark.parametrize("array", [np.full((4, 5), 40_000, np.uint16), np.full((4, 5), 0.5, np.float32)])
def test_more_than_8_bits_are_refused_instead_of_cut_off(tmp_path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff: more than 8 bits a channel"):
        opened(tmp_path)


# -- what cannot be used


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int) -> bytes:
    """A file of some hundred bytes that says it has so many pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot identify"),
        (b"\xff\xd8\xff\xe0" + b"?" * 50, "cannot identify|is no image"),
        (png(50_000, 50_000), "far too many pixels|pixels; an image has 67,108,864 at most"),
        (png(9_000, 9_000), "9000×9000 pixels; an image has 67,108,864 at most"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n%%EndComments\n", "cannot identify"),
    ],
    ids=["empty", "garbage", "bomb", "smaller bomb", "a program"],
)
def test_hostile_images_are_refused_before_any_work(tmp_path: Path, content: bytes, message: str) -> None:
    save(tmp_path / "0.png", 0)
    (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        opened(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / '1.png'}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tiff"])
def test_a_truncated_image_is_named_when_it_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"0.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is no image that can be read") as caught:
        values(opened(tmp_path))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_sliver_is_not_resized_to_gigabytes(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0, (1, 60_000))
    with pytest.raises(DataError, match="would be resized to 256×15360000 pixels"):
        opened(tmp_path, Preprocess(resize=256, crop=(4, 5)))


def test_an_image_smaller_than_the_crop(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0)
    with pytest.raises(DataError, match="4×5 pixels, the crop is 8×8; say in a preprocessing file"):
        opened(tmp_path, Preprocess(crop=8), "float[batch,3,8,8] image")


def test_a_crop_that_the_model_does_not_take(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0)
    with pytest.raises(
        DataError, match=r"shape \[1, 3, 2, 2\] does not fit the input 'image' float32\[batch,3,4,5\]"
    ):
        opened(tmp_path, Preprocess(crop=2))


def test_images_need_a_preprocessing(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0)
    with pytest.raises(
        UsageError, match=r"holds images; say how .* --preprocess imagenet, .*onnxprune\.Images"
    ):
        open_data(tmp_path, inputs(IMAGE))


def test_images_for_several_inputs(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 0)
    with pytest.raises(DataError, match=r"images for one input, the model wants 'a' .*, 'b' .*\.csv"):
        opened(tmp_path, want="float[n,3,4,5] a,  float[n,3,4,5] b")


def test_without_pillow_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "0.png", 0)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'onnxprune\[images\]'"):
        opened(tmp_path)


def test_no_format_that_starts_programs_is_known() -> None:
    assert not {"EPS", "WMF", "PDF"} & set(pictures._FORMATS)
    buffer = io.BytesIO()
    Image.new("RGB", (4, 5)).save(buffer, "EPS")
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(buffer, formats=pictures._FORMATS)
