"""Evaluate: against torch and brute force, whatever the head, the batch size and the number of outputs."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
import torch

from onnxprune.data import Images, open_data
from onnxprune.errors import DataError, ModelError
from onnxprune.evaluate import evaluate
from onnxprune.figures import log_probabilities

CLASSES = 12
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.standard_normal((70, CLASSES))).astype(np.float32)
OTHER = (LOGITS + RNG.standard_normal(LOGITS.shape)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 70)

HEADS = {"logits": "Identity", "probabilities": "Softmax", "log-probabilities": "LogSoftmax"}
# Figures are float64 sums over float32 outputs of magnitude about 10; Softmax itself rounds to 2**-24.
TOLERANCE = 1e-5


def model(
    body: str, outputs: str = f"float[n,{CLASSES}] y", inputs: str = f"float[n,{CLASSES}] x"
) -> ir.Model:
    text = f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => ({outputs}) {{ {body} }}'
    return ir.from_proto(onnx.parser.parse_model(text))


def head(op: str = "Identity") -> ir.Model:
    return model(f"y = {op}(x)")


def feeds(x: np.ndarray = LOGITS, **labels: Any) -> dict[str, np.ndarray]:
    return {"x": x, **labels}


# -- against labels


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("batch_size", [1, 32, 70])
def test_accuracy_and_loss_are_torch_s_for_every_head(kind: str, batch_size: int) -> None:
    metrics = evaluate(head(HEADS[kind]), feeds(labels=LABELS), batch_size=batch_size)
    order = np.argsort(-LOGITS, axis=1)
    loss = torch.nn.functional.cross_entropy(torch.tensor(LOGITS).double(), torch.tensor(LABELS))
    assert metrics.values["loss"] == pytest.approx(loss.item(), rel=TOLERANCE)
    assert metrics.values["top1"] == np.mean(order[:, 0] == LABELS)
    assert metrics.values["top5"] == np.mean(
        [label in row[:5] for row, label in zip(order, LABELS, strict=True)]
    )
    assert (metrics.primary, metrics.value, metrics.count) == ("top1", metrics.values["top1"], 70)


def test_of_equal_outputs_the_first_wins_as_in_argmax() -> None:
    x = np.zeros((CLASSES, CLASSES), np.float32)
    metrics = evaluate(head(), feeds(x, y=np.arange(CLASSES)))
    assert metrics.values["top1"] == 1 / CLASSES
    assert metrics.values["top5"] == 5 / CLASSES


def test_five_classes_have_no_top_5() -> None:
    small = model("y = Identity(x)", "float[n,5] y", "float[n,5] x")
    assert set(evaluate(small, feeds(LOGITS[:, :5], y=LABELS % 5)).values) == {"loss", "top1"}


def test_float16_probabilities_are_seen_to_be_probabilities() -> None:
    # Half of the mass on one class and the rest on very many is what float16 sums worst.
    exact = np.full((2, 50_000), 0.5 / 49_999)
    exact[:, 3] = 0.5
    rounded = exact.astype(np.float16)
    assert abs(rounded[0].sum(dtype=np.float64) - 1) > 1e-4
    # float16 has a spacing of 2**-24 near 1e-5, of which rounding costs half
    np.testing.assert_allclose(log_probabilities(rounded), np.log(exact), atol=2**-25 / 1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(70, CLASSES), "label 12 is not among the model's classes 0..11"),
        (np.full(70, -1), "label -1 is not among"),
        (np.full(70, "cat"), r"labels are <U3 \[70\], not one class number a sample"),
        (np.full(70, 1.0), r"labels are float64 \[70\]"),
        (np.eye(70, CLASSES, dtype=int), r"labels are int64 \[70, 12\]"),
        (None, "it has no labels; compare with a reference"),
    ],
)
def test_labels_that_cannot_be_used(labels: np.ndarray | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(head(), feeds() if labels is None else feeds(labels=labels))


def test_labels_need_an_output_of_classes() -> None:
    regressor = model("y = ReduceMean<keepdims=1>(x, axes)", "float[n,1] y")
    axes = ir.Value(name="axes", const_value=ir.tensor(np.array([1]), name="axes"))
    regressor.graph.register_initializer(axes)
    regressor.graph[0].replace_input_with(1, axes)
    with pytest.raises(DataError, match=r"an output \[batch, classes\], the model has 'y' \[32, 1\]"):
        evaluate(regressor, feeds(y=LABELS))


def test_unusable_labels_beside_a_reference_are_noted() -> None:
    metrics = evaluate(head(), feeds(labels=np.full(70, "cat")), reference=head())
    assert metrics.primary == "agreement" and "labels not used: its labels are <U3" in metrics.notes[0]


def test_a_class_without_images_used_to_shift_the_others_silently(tmp_path: Path) -> None:
    """A user's folder had nine of ten classes: 3 % right, and not a word why."""
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog", "owl"):
        (tmp_path / name).mkdir()
        image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name / "a.png")
    for side, classes, said in ((1, 3, False), (2, 12, True)):
        net = model("y = Flatten(x)", f"float[n,{classes}] y", inputs=f"float[n,3,{side},{side}] x")
        notes = evaluate(net, Images(tmp_path, "unit")).notes
        assert any(f"names of 3 classes, the model has {classes}" in note for note in notes) == said


# -- against a reference


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("other_kind", HEADS)
@pytest.mark.parametrize("batch_size", [9, 70])
def test_agreement_and_divergence_are_torch_s(kind: str, other_kind: str, batch_size: int) -> None:
    both = {"x": LOGITS, "d": OTHER - LOGITS}
    inputs = f"float[n,{CLASSES}] x, float[n,{CLASSES}] d"
    ours = model(f"s = Add(x, d)  y = {HEADS[kind]}(s)", inputs=inputs)
    reference = model(f"s = Identity(d)  y = {HEADS[other_kind]}(x)", inputs=inputs)
    metrics = evaluate(ours, both, reference=reference, batch_size=batch_size)
    log_p, log_q = (torch.log_softmax(torch.tensor(x).double(), 1) for x in (OTHER, LOGITS))
    kl = torch.nn.functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
    assert metrics.values["agreement"] == np.mean(OTHER.argmax(1) == LOGITS.argmax(1))
    assert metrics.values["kl"] == pytest.approx(kl.item(), rel=TOLERANCE)
    assert metrics.primary == "agreement"


@pytest.mark.parametrize("batch_size", [9, 70])
def test_distances_are_those_of_all_outputs(batch_size: int) -> None:
    shape = "float[n,3,4]"
    outputs, inputs = f"{shape} a, {shape} b", f"{shape} x, {shape} d"
    x, d = RNG.standard_normal((2, 70, 3, 4)).astype(np.float32)
    ours = model("a = Add(x, d)  b = Sub(x, d)", outputs, inputs)
    reference = model("a = Identity(x)  b = Identity(d)", outputs, inputs)
    metrics = evaluate(ours, {"x": x, "d": d}, reference=reference, batch_size=batch_size)
    pairs = [(torch.tensor(x + d), torch.tensor(x)), (torch.tensor(x - d), torch.tensor(d))]
    cosines = [torch.cosine_similarity(y.flatten(1), r.flatten(1)).mean().item() for y, r in pairs]
    squares = sum(((y - r) ** 2).sum().item() for y, r in pairs)
    norm = sum((r**2).sum().item() for _, r in pairs)
    assert set(metrics.values) == {"cosine", "mse", "relative_error"}  # no head here is a classifier's
    assert metrics.values["cosine"] == pytest.approx(np.mean(cosines), rel=TOLERANCE)
    assert metrics.values["mse"] == pytest.approx(squares / (2 * x.size), rel=TOLERANCE)
    assert metrics.values["relative_error"] == pytest.approx(np.sqrt(squares / norm), rel=TOLERANCE)
    assert metrics.primary == "cosine"


def test_a_model_is_equal_to_itself() -> None:
    metrics = evaluate(head("Softmax"), feeds(y=LABELS), reference=head("Softmax"))
    assert metrics.values["agreement"] == 1 and metrics.values["kl"] == 0
    assert metrics.values["mse"] == metrics.values["relative_error"] == 0
    assert metrics.values["cosine"] == pytest.approx(1, abs=1e-12)  # a square root's rounding in float64
    assert metrics.primary == "top1"


def test_zero_outputs_are_equal_to_zero_outputs_and_to_nothing_else() -> None:
    zero = model("d = Sub(x, x)  y = Reshape(d, s)", "float[n,3,4] y")
    same = model("y = Reshape(x, s)", "float[n,3,4] y")
    for each in (zero, same):
        shape = ir.Value(name="s", const_value=ir.tensor(np.array([-1, 3, 4]), name="s"))
        each.graph.register_initializer(shape)
        each.graph[-1].replace_input_with(1, shape)
    assert evaluate(zero, feeds(), reference=zero).values == {"cosine": 1.0, "mse": 0.0}
    assert evaluate(zero, feeds(), reference=same).values["cosine"] == 0
    assert evaluate(zero, feeds(), reference=same).values["relative_error"] == 1


def test_noise_compares_with_a_reference() -> None:
    metrics = evaluate(head(), None, reference=head("Softmax"), samples=16)
    assert metrics.values["agreement"] == 1 and metrics.data.startswith("data-free: 16")


def test_positions_of_a_sequence_agree_one_by_one() -> None:
    sequence = np.stack([LOGITS[:35], LOGITS[35:]], axis=1)
    other = np.stack([OTHER[:35], OTHER[35:]], axis=1)
    shape = f"float[n,t,{CLASSES}]"
    inputs = f"{shape} x, {shape} d"
    ours = model("y = Softmax(d)", f"{shape} y", inputs)
    reference = model("y = Softmax(x)", f"{shape} y", inputs)
    metrics = evaluate(ours, {"x": sequence, "d": other}, reference=reference)
    assert metrics.values["agreement"] == np.mean(OTHER.argmax(1) == LOGITS.argmax(1))


def test_class_numbers_without_any_float_output_are_compared_one_by_one() -> None:
    def classes(op: str) -> ir.Model:
        return model(f"z = {op}(x) y = ArgMax<axis=1, keepdims=0>(z)", "int64[n] y")

    metrics = evaluate(classes("Neg"), feeds(), reference=classes("Abs"), batch_size=32)
    same = (-LOGITS).argmax(1) == np.abs(LOGITS).argmax(1)
    assert (metrics.primary, metrics.value) == ("agreement", same.mean())
    assert 0 < metrics.value < 1


def test_a_reference_with_other_outputs_is_refused() -> None:
    other = model("z = Identity(x)", f"float[n,{CLASSES}] z")
    with pytest.raises(ModelError, match="output 'z' is missing or of another shape"):
        evaluate(head(), feeds(), reference=other)


@pytest.mark.parametrize("op", ["Log", "Reciprocal"])
def test_outputs_that_are_not_finite_are_refused(op: str) -> None:
    with pytest.raises(ModelError, match="gives NaN or Inf in its output 'y'"):
        evaluate(head(op), feeds(np.zeros_like(LOGITS) if op == "Reciprocal" else LOGITS, y=LABELS))


# -- how it is called


def test_paths_models_and_opened_data_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    ir.save(head(), path)
    by_path = evaluate(path, feeds(y=LABELS), reference=str(path), samples=20, seed=5)
    data = open_data(feeds(y=LABELS), head().graph.inputs, samples=20, seed=5)
    assert by_path == evaluate(head(), data, reference=head())
    assert by_path.count == 20


def test_progress_counts_every_sample() -> None:
    seen: dict[tuple[str, int | None], list[int]] = {}

    class Recorder:
        @contextmanager
        def stage(self, name: str, total: int | None) -> Any:
            yield seen.setdefault((name, total), []).append

    evaluate(head(), feeds(y=LABELS), progress=Recorder(), batch_size=32)
    assert seen == {
        ("reading data", None): [70],
        ("checking data", 70): [70],
        ("evaluation", 70): [32, 32, 6],
    }


def test_resnet20_is_as_good_as_published(shared: Path) -> None:
    with np.load(shared / "cifar10" / "cifar10_test_lossless.npz") as archive:
        pixels = (archive["x"] / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        source = {"input": pixels.transpose(0, 3, 1, 2), "labels": archive["y"]}
    metrics = evaluate(shared / "models" / "resnet20_cifar10.onnx", source)
    # 91.73 % published on 10,000 images; on 509 of them the standard error is 1.2 points, three allowed
    assert metrics.values["top1"] == pytest.approx(0.9173, abs=0.036)
