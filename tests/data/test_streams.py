"""Feeds that come one by one: read once, kept, stopped early, and errors of the user's code in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_inputs import inputs

from onnxprune.data import Data, imported, open_data, repeatable, streams
from onnxprune.data.storage import Storage
from onnxprune.errors import DataError, UsageError

ROW = "float[batch,2] x"


def feed(number: int, count: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.full((count, 2), number, np.float32)}


class Reader:
    """As onnxruntime's CalibrationDataReader: one buffer, written over by every call."""

    def __init__(self, count: int = 5) -> None:
        self.left, self.given = iter(range(count)), 0
        self.buffer = np.zeros((1, 2), np.float32)

    def get_next(self) -> dict[str, np.ndarray] | None:
        number = next(self.left, None)
        if number is None:
            return None
        self.given += 1
        self.buffer[...] = number
        return {"x": self.buffer}


class Loader:
    """An iterable that is no sequence, as torch's DataLoader."""

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (feed(number) for number in range(5))


def numbers(data: Data) -> list[int]:
    return [int(row[0]) for batch in data.batches() for row in batch.feeds["x"]]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(Reader, id="class"),
        pytest.param(lambda: Reader(), id="function"),
        pytest.param(lambda: [feed(n) for n in range(5)], id="function of a list"),
        pytest.param(Loader(), id="iterable"),
        pytest.param(Loader, id="class of iterables"),
    ],
)
def test_what_gives_feeds(source: Any) -> None:
    data = open_data(source, inputs(ROW), batch_size=2)
    assert numbers(data) == numbers(data) == [0, 1, 2, 3, 4]
    assert [batch.count for batch in data.batches()] == [2, 2, 1]


def test_onnxruntime_s_own_class_is_taken() -> None:
    quantization = pytest.importorskip("onnxruntime.quantization.calibrate")

    class Own(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped
        def __init__(self) -> None:
            self.feeds = iter([feed(n) for n in range(3)])

        def get_next(self) -> Any:
            return next(self.feeds, None)

    assert numbers(open_data(Own(), inputs(ROW))) == [0, 1, 2]


def test_no_more_is_read_than_asked_for() -> None:
    reader = Reader(1000)
    data = open_data(reader, inputs(ROW), samples=7)
    assert (numbers(data), reader.given) == (list(range(7)), 7)
    assert data.description == "feeds: the first 7 samples"

    def endless() -> Iterator[dict[str, np.ndarray]]:
        number = 0
        while True:
            yield feed(number, 3)
            number += 1

    assert numbers(open_data(endless(), inputs(ROW), samples=7)) == [0, 0, 0, 1, 1, 1, 2]


def test_a_list_is_drawn_from_by_the_seed() -> None:
    drawn = open_data([feed(n) for n in range(50)], inputs(ROW), samples=7, seed=1)
    whole = np.repeat(np.arange(50, dtype=np.float32)[:, None], 2, 1)
    assert numbers(drawn) == numbers(open_data(whole, inputs(ROW), samples=7, seed=1)) != list(range(7))


def test_a_stream_can_be_opened_again_and_further() -> None:
    reader = Reader(10)
    stream = repeatable(reader)
    assert repeatable(stream) is stream
    assert numbers(open_data(stream, inputs(ROW), samples=3)) == [0, 1, 2]
    assert numbers(open_data(stream, inputs(ROW), samples=5)) == [0, 1, 2, 3, 4]
    assert reader.given == 5
    assert numbers(open_data(stream, inputs(ROW))) == list(range(10))
    assert numbers(open_data(stream, inputs(ROW))) == list(range(10))


def test_feeds_beyond_memory_are_kept_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "Storage", lambda: Storage(memory=20))
    data = open_data(Reader(9), inputs(ROW), batch_size=4)
    assert numbers(data) == numbers(data) == list(range(9))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            (feed(n) if n < 2 else {"x": 1 / 0} for n in range(3)),
            "feeds: feed 2 raised ZeroDivisionError: ",
        ),
        (lambda: open("nothing here"), "feeds: calling it raised FileNotFoundError: .*nothing here"),
        (lambda needed: [], "feeds: calling it raised TypeError: .*needed"),
        ((n for n in range(3)), "feeds: cannot use int as a feed; give a file, .* reader whose get_next"),
        (([1, 2] for n in range(3)), "feeds: cannot use list as a feed"),
        (({"x": np.zeros((1, 3))} for n in range(3)), r"feed 0: shape \[1, 3\] does not fit the input 'x'"),
        (iter([]), "feeds: no samples; the model wants 'x'"),
    ],
)
def test_errors_of_what_gives_feeds(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_data(source, inputs(ROW))
    assert "\n" not in str(caught.value)


# -- module:object


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module in the working directory; how it is named."""
    name = "feeds_of_a_test"
    (tmp_path / f"{name}.py").write_text(
        "import numpy as np\n"
        "def feeds():\n    for n in range(4):\n        yield {'x': np.full((1, 2), n, np.float32)}\n"
        "class Space:\n    array = np.zeros((3, 2), np.float32)\n"
    )
    (tmp_path / f"{name}_broken.py").write_text("raise ValueError('not today')\n")
    (tmp_path / f"{name}_leaving.py").write_text("raise SystemExit(3)\n")
    (tmp_path / f"{name}_needy.py").write_text("import a_module_nobody_has\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield name
    for imported_name in [key for key in sys.modules if key.startswith(name)]:
        del sys.modules[imported_name]


def test_an_object_of_a_module_in_the_working_directory(module: str) -> None:
    source = imported(f"{module}:feeds")
    for _ in range(2):
        data = open_data(source, inputs(ROW))
        assert numbers(data) == [0, 1, 2, 3] and data.description == f"{module}:feeds: 4 samples"
    assert open_data(imported(f"{module}:Space.array"), inputs(ROW)).count == 3


@pytest.mark.parametrize(
    ("suffix", "kind", "message"),
    [
        ("_missing:feeds", UsageError, "there is no module 'feeds_of_a_test_missing' in /"),
        (":food", UsageError, "feeds_of_a_test has no 'food'; name a reader"),
        ("_broken:feeds", DataError, "importing it raised ValueError: not today"),
        ("_leaving:feeds", DataError, "importing it raised SystemExit: 3"),
        ("_needy:feeds", DataError, "raised ModuleNotFoundError: No module named 'a_module_nobody_has'"),
    ],
)
def test_objects_that_cannot_be_had(module: str, suffix: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        imported(module + suffix)
    assert str(caught.value).startswith(module + suffix) and "\n" not in str(caught.value)
