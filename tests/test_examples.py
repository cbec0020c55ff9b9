"""The examples run as they stand, each where what it needs is installed; the OCR one on shared models."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

import onnxprune

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
RECOGNISER = ROOT.parent / "shared/data/models/ch_PP-OCRv4_rec_infer.onnx"
WORDS = ROOT.parent / "shared/data/ocr_words/ocr_words.npz"

# Warnings of torch's exporter and of torch itself, which their users see, too.
exports = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_has_a_page() -> None:
    pages = "".join(page.read_text("utf-8") for page in (ROOT / "docs/examples").glob("*.md"))
    assert all(f"../../examples/{script.name})" in pages for script in EXAMPLES.glob("*.py"))


@exports
def test_a_classifier_is_trained_exported_pruned_quantised_and_packed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    figures = example("classifier").main(tmp_path / "made", epochs=4)
    sizes = {name: size for name, (size, _) in figures.items()}
    assert sizes["dense"] > 4 * sizes["small"] > 4 * sizes["tiny"] and sizes["int8"] > 1.5 * sizes["tiny"]
    accuracies = [accuracy for _, accuracy in figures.values()]
    # 94 % after four epochs; 0.5 points lost at most were measured, two are four standard errors of 2,000.
    assert min(accuracies) > 0.9 and max(accuracies) - min(accuracies) < 0.02


@contextlib.contextmanager
def serving(model: Path) -> Iterator[str]:
    server = example("serve").server(str(model), port=0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def posted(address: str, body: bytes) -> dict:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(address, data=body, method="POST"), timeout=30) as answer:
        return json.loads(answer.read())


def test_a_packed_file_is_served(tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    onnxprune.compress(ROOT / "models/lenet_300_100.onnx", None, recipe="magnitude", ratio=0.1, output=small)
    digits = np.load(ROOT / "calibration/lenet_300_100.eval.npz")
    with serving(small) as address:
        body = io.BytesIO()
        np.save(body, digits["input"][:20])
        (logits,) = posted(address, body.getvalue()).values()
        assert np.mean(np.argmax(logits, 1) == digits["labels"][:20]) > 0.7  # of 20; dense: all
        for wrong in (b"no array", b""):
            with pytest.raises(urllib.error.HTTPError) as refused:
                posted(address, wrong)
            assert refused.value.code == 400 and "float" in json.loads(refused.value.read())["wanted"]
        assert posted(address, body.getvalue())  # and goes on


@exports
def test_a_text_encoder_is_narrower_and_close_to_the_dense_one(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    figures = example("text_encoder").main(tmp_path)
    (dense, _), (fast, moved), (small, further) = figures.values()
    assert dense > 1.1 * fast > 1.4 * small
    assert 0 < moved < 0.05 and 0 < further < 0.05  # measured: 0.007 and 0.008


@exports
def test_half_of_a_detector_goes_and_its_boxes_stay(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    report = example("detector").main(tmp_path, images=16).report
    assert report.metric is not None and report.macs_before and report.macs_after
    assert report.macs_after <= report.macs_before / 2
    assert report.metric.before == 1 and report.metric.after > 0.9  # measured: 0.998 with 64 images
    assert report.metric.name == "same_boxes"
    ops = {node.op_type for node in onnx.load(tmp_path / "dense.onnx").graph.node}
    assert {"Conv", "Sigmoid", "Split", "Concat", "Resize", "MaxPool", "Softmax"} <= ops


@pytest.mark.slow
@pytest.mark.skipif(not (RECOGNISER.is_file() and WORDS.is_file()), reason="shared/ has no recogniser")
def test_words_are_read_and_the_search_keeps_to_its_drop(tmp_path: Path) -> None:
    ocr = example("ocr")
    few = {name: array[:40] for name, array in np.load(WORDS).items()}
    np.savez(tmp_path / "few.npz", **few)
    given = {"recipe": "magnitude", "max_drop": 0.3}
    report = ocr.main(RECOGNISER, tmp_path / "few.npz", tmp_path / "small.onnx", **given).report
    assert report.metric is not None and report.metric.name == "exact_match"
    assert report.metric.before > 0.6  # 84.5 % of all 420; ten lines are measured here
    assert report.goal is not None and report.goal.reached <= 0.3 and report.kept_ratio < 1


def test_repeats_and_blanks_are_joined() -> None:
    ocr = example("ocr")
    ocr.CHARACTERS[:] = ["", "a", "b", " "]
    scores = np.eye(4)[[1, 1, 0, 1, 2, 3, 0]]
    assert ocr.decoded(scores) == "aab"
