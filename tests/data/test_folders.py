"""Folders of shards, tables of files, and archives: lazily read, and damage said in one line."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_inputs import inputs

from onnxprune.data import Data, archives, lazy, open_data
from onnxprune.data.storage import Storage
from onnxprune.errors import DataError

ROW = "float[batch,2] x"
TOKENS = "int64[batch,length] input_ids,  int64[batch,length] attention_mask"


def rows(start: int, stop: int) -> np.ndarray:
    return np.arange(2 * start, 2 * stop, dtype=np.float32).reshape(-1, 2)


def numbers(data: Data, name: str = "x") -> list[int]:
    return [int(row[0]) // 2 for batch in data.batches() for row in batch.feeds[name]]


def labels(data: Data) -> list[int]:
    return [int(label) for batch in data.batches() if batch.labels is not None for label in batch.labels]


# -- shards


@pytest.mark.parametrize("kind", ["npy", "savez", "savez_compressed"])
def test_shards_are_one_source_in_the_order_of_their_names(tmp_path: Path, kind: str) -> None:
    for number, (start, stop) in enumerate([(0, 5), (5, 6), (6, 13)]):
        path = tmp_path / "deep" / f"s{number}"
        path.parent.mkdir(exist_ok=True)
        if kind == "npy":
            np.save(path, rows(start, stop))
        else:
            getattr(np, kind)(path, x=rows(start, stop), labels=np.arange(start, stop) % 3)
    data = open_data(tmp_path, inputs(ROW), batch_size=4)
    assert [batch.count for batch in data.batches()] == [4, 4, 4, 1]  # batches do not end with shards
    assert numbers(data) == numbers(data) == list(range(13))
    assert labels(data) == ([] if kind == "npy" else [n % 3 for n in range(13)])
    whole = open_data(rows(0, 13), inputs(ROW), samples=6, seed=4)
    assert numbers(open_data(tmp_path, inputs(ROW), samples=6, seed=4)) == numbers(whole)


def test_of_uncompressed_shards_only_the_rows_of_a_batch_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", x=rows(0, 100))
    np.save(tmp_path / "b.npy", rows(100, 200))
    data = open_data(tmp_path, inputs(ROW), batch_size=10)
    read, real = list[int](), lazy.NpyFile.__getitem__

    def counting(self: Any, index: Any) -> Any:
        found = real(self, index)
        read.append(len(found))
        return found

    monkeypatch.setattr(lazy.NpyFile, "__getitem__", counting)
    batches = data.batches()
    next(batches)
    assert read == [10]
    assert sum(1 for _ in batches) == 19 and sum(read) == 200


def test_compressed_shards_are_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        np.savez_compressed(tmp_path / f"{number}.npz", x=rows(4 * number, 4 * number + 4))
    unpacked, real = list[str](), archives.Npz.unpack
    monkeypatch.setattr(
        archives.Npz, "unpack", lambda self, *a: unpacked.append(self._path.name) or real(self, *a)
    )
    data = open_data(tmp_path, inputs(ROW), batch_size=5)
    assert numbers(data) == numbers(data) == list(range(12))
    assert unpacked == ["0.npz", "1.npz", "2.npz"]


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_in_fortran_s_order(tmp_path: Path, compressed: bool) -> None:
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", x=np.asfortranarray(rows(0, 7)))
    np.save(tmp_path / "b.npy", np.asfortranarray(rows(7, 9)))
    assert np.array_equal(open_data(tmp_path, inputs(ROW)).array("x"), rows(0, 9))


def test_the_batch_axis_need_not_be_the_first(tmp_path: Path) -> None:
    state = np.arange(42, dtype=np.float32).reshape(3, 7, 2)
    for number, (start, stop) in enumerate([(0, 2), (2, 7)]):
        np.savez(tmp_path / f"{number}.npz", s=state[:, start:stop], x=rows(start, stop), rate=np.float32(8))
    data = open_data(tmp_path, inputs("float[3,batch,2] s,  float[batch,2] x,  float rate"), batch_size=4)
    assert np.array_equal(np.concatenate([b.feeds["s"] for b in data.batches()], 1), state)
    assert numbers(data) == list(range(7)) and all(b.feeds["rate"] == 8 for b in data.batches())


def test_text_of_different_lengths_is_batched_by_length_and_cast(tmp_path: Path) -> None:
    for number, length in enumerate([5, 5, 8]):
        ids = np.full((3, length), number, np.int32)
        np.savez(tmp_path / f"{number}.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    batches = list(open_data(tmp_path, inputs(TOKENS), batch_size=4).batches())
    assert [batch.feeds["input_ids"].shape for batch in batches] == [(4, 5), (2, 5), (3, 8)]
    assert {array.dtype for batch in batches for array in batch.feeds.values()} == {np.dtype(np.int64)}


def test_the_shard_that_does_not_fit_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", rows(0, 3))
    np.save(tmp_path / "b.npy", np.zeros((3, 4), np.float32))
    with pytest.raises(DataError, match=r"b\.npy: shape \[3, 4\] does not fit the input 'x' float32"):
        open_data(tmp_path, inputs(ROW))


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "holds no data; give a folder of images"), (["a.png", "b.npy"], "both images and arrays, such as")],
)
def test_folders_of_nothing_or_of_both(tmp_path: Path, files: list[str], message: str) -> None:
    for name in [*files, "README.md"]:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        open_data(tmp_path, inputs(ROW))


# -- names


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["input_id", "attention_mask"],
            r"wants 'input_ids' int64\[batch,length\]; rename 'input_id' if",
        ),
        (
            ["input_ids"],
            "wants 'attention_mask' .*: 'attention_mask' usually is 1 where there is a token",
        ),
        (["input_ids", "pixels"], "holds 'input_ids', 'pixels', .* 'attention_mask' .*; rename the arrays"),
    ],
)
def test_names_that_are_wrong_or_missing(keys: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_data({key: np.zeros((2, 3), np.int64) for key in keys}, inputs(TOKENS))


# -- tables


def table(folder: Path, text: str) -> Path:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return folder / "t.csv"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with 0.npy, …, 3.npy, samples with and without the batch axis."""
    for number in range(4):
        np.save(tmp_path / f"{number}.npy", rows(number, number + 1)[0 if number % 2 else ...])
    return tmp_path


@pytest.mark.parametrize("column", ["path", "x"])
def test_a_table_names_a_file_a_sample(files: Path, column: str) -> None:
    data = open_data(
        table(files, f"label,{column}\n1,2.npy\n0,0.npy\n1,2.npy\n-5,3.npy\n"), inputs(ROW), batch_size=3
    )
    assert [batch.count for batch in data.batches()] == [3, 1]
    assert (numbers(data), labels(data)) == ([2, 0, 2, 3], [1, 0, 1, -5])


def test_labels_that_are_names_are_numbered_in_order(files: Path) -> None:
    data = open_data(table(files, "path,label\n0.npy,owl\n1.npy,cat\n2.npy,owl\n"), inputs(ROW))
    assert labels(data) == [1, 0, 1] and "labelled by name (0 = cat, 1 = owl)" in data.description


def test_several_inputs_have_a_column_each(tmp_path: Path) -> None:
    for number, length in enumerate([4, 4, 6]):
        np.save(tmp_path / f"i{number}.npy", np.full(length, number))
        np.save(tmp_path / f"m{number}.npy", np.ones((1, length), np.int64))
    text = "input_ids,attention_mask\n" + "".join(f"i{n}.npy,m{n}.npy\n" for n in range(3))
    data = open_data(table(tmp_path, text), inputs(TOKENS))
    assert [b.feeds["input_ids"][:, 0].tolist() for b in data.batches()] == [[0, 1], [2]]


def test_a_picture_and_a_number_a_sample(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from onnxprune import Images

    for number in range(3):
        image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        np.save(tmp_path / f"{number}.npy", rows(number, number + 1))
    text = "x,image\n" + "".join(f"{n}.npy,{n}.png\n" for n in (2, 0, 1))
    data = open_data(Images(table(tmp_path, text), "none"), inputs("float[n,2] x,  float[n,3,4,5] image"))
    assert numbers(data) == [2, 0, 1] == data.array("image")[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its columns are none; the first line must name a column 'path'"),
        (
            "file,label\n0.npy,1\n",
            "its columns are 'file', 'label'; the first line must name a column",
        ),
        ("path;label\n0.npy;1\n", "its columns are 'path;label'"),
        ("path\n", "no samples"),
        ("path,label\n0.npy,1\n1.npy,\n", "line 3 has no label"),
        ("path,label\n0.npy,1\n1.npy\n", "line 3 has no label"),
        ("path,label\n0.npy,1\n1.npy,cat\n", "line 2 has the label '1'; give class numbers in all lines"),
        ("path,label\n0.npy,0.5\n", "line 2 has the label '0.5'"),
        ("path,label\n0.npy,99999999999999999999\n", "line 2 has the label '99999999999999999999'"),
        ("path,label\n,1\n", "line 2 names no file"),
        ("path\n0.npy,1\n", "line 2 has more fields than the first"),
        ("path\n9.npy\n", "line 2 names '9.npy', and there is no such file"),
        ("path\nt.csv\n", r"names \.csv files for the input 'x' .*; give images, or \.npy files"),
        ("path\n../0.npy\n", "line 2 names '../0.npy', outside the folder of the table"),
        ("path\na/../../0.npy\n", "outside the folder"),
        ("path\n/etc/passwd\n", "outside the folder"),
        ("path\nlink/secret.npy\n", "outside the folder"),
        ("path\n0.npy\0\n", "outside the folder|cannot be read"),
        ('path\n"0.npy\n', "cannot be read"),
        ("path\n" + "a" * 200_000, "cannot be read .field larger than field limit"),
    ],
)
def test_tables_that_cannot_be_used(files: Path, text: str, message: str) -> None:
    outside = files.parent / f"{files.name}-outside"
    outside.mkdir()
    np.save(outside / "secret.npy", rows(0, 1))
    (files / "link").symlink_to(outside)
    with pytest.raises(DataError, match=message) as caught:
        open_data(table(files, text), inputs(ROW))
    assert "t.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_not_text(files: Path) -> None:
    (files / "t.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"t\.csv: cannot be read .*save it as CSV in UTF-8"):
        open_data(files / "t.csv", inputs(ROW))


def test_a_line_that_names_many_samples(files: Path) -> None:
    np.save(files / "0.npy", rows(0, 3))
    with pytest.raises(DataError, match=r"0\.npy: shape \[3, 2\]; a line of a \.csv is one sample"):
        open_data(table(files, "path\n0.npy\n"), inputs(ROW))


# -- hostile archives


def npy_header(shape: tuple[int, ...], length: int | None = None) -> bytes:
    """The header of an `.npy` that says it has this shape, or is `length` bytes long itself."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_2_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    header = bytearray(stream.getvalue())
    if length is not None:
        header[8:12] = struct.pack("<I", length)
    return bytes(header)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy_header((10**12, 2)), "needs 8,000,000,000,192 bytes, it has 192|needs 8,000,000,000,"),
        (npy_header((2**62, 2**62)), "needs 85,070,591,730"),
        (npy_header((-1, 2)), "needs"),
        (npy_header((1, 2), 2**32 - 1), "cannot be read"),
        (npy_header((1, 2), 50_000) + b"(" * 60_000, "cannot be read"),
        (b"\x93NUMPY\x01\x00\x10\x00{'shape': (\x00, 1\n", "cannot be read"),
    ],
    ids=["long", "overflow", "negative", "long header", "nested header", "header that is no Python"],
)
def test_headers_that_promise_too_much(tmp_path: Path, suffix: str, content: bytes, message: str) -> None:
    path = tmp_path / f"d{suffix}"
    if suffix == ".npy":
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", content)
    with pytest.raises(DataError, match=message) as caught:
        open_data(path, inputs(ROW))
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_uncompressed_archive_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=rows(0, 500))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"the array 'x' cannot be read \(Bad CRC-32"):
        open_data(path, inputs(ROW))


def test_an_encrypted_archive(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=rows(0, 5))
    content = bytearray(path.read_bytes())
    for place in (6, content.rindex(b"PK\x01\x02") + 8):  # the flags of the member, in both headers
        content[place] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        open_data(path, inputs(ROW))


# -- storage


def test_arrays_beyond_the_bound_are_in_files_and_the_same() -> None:
    storage, rng = Storage(memory=1000), np.random.default_rng(0)
    sizes = [(3, "f8"), (20, "f4"), (0, "f4"), (9, "f8")]
    arrays = [rng.standard_normal((rows, 7)).astype(dtype) for rows, dtype in sizes]
    kept = [storage.keep(array) for array in arrays]
    assert [isinstance(array.base, np.memmap) for array in kept] == [False, False, False, True]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, kept, strict=True))


def test_a_disk_that_is_full_is_an_error_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DataError, match=r"No space left on device.*--samples, or set TMPDIR"):
        Storage(memory=0).keep(np.zeros(3))
