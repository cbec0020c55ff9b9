"""Metrics of one's own: what they are given, where they count, and what becomes of their mistakes."""

import numpy as np
import onnx_ir as ir
import pytest
from sweep.test_walk import net
from tiny import samples

from onnxprune import compress
from onnxprune.errors import PluginError, UsageError
from onnxprune.evaluate import evaluate
from onnxprune.session import Session


@pytest.fixture
def saved(tmp_path):
    model, shape = net("mlp")
    ir.save(model, tmp_path / "mlp.onnx")
    return tmp_path / "mlp.onnx", samples(shape, 20)


def accuracy(outputs, labels, reference):
    return np.mean(np.concatenate(outputs["y"]).argmax(1) == np.concatenate(labels))


def test_it_sees_every_batch_in_order_with_labels_and_reference(saved):
    path, x = saved
    seen = {}

    def spy(outputs, labels, reference):
        seen.update(outputs=outputs, labels=labels, reference=reference)
        return 0.25

    labels = np.arange(20) % 3
    metrics = evaluate(path, {"x": x, "labels": labels}, reference=path, metric=spy, batch_size=8)
    assert metrics.primary == "spy" and metrics.value == 0.25
    assert "top1" in metrics.values and "agreement" in metrics.values
    want = Session(path, "cpu").run({"x": x})["y"]
    for lists in (seen["outputs"], seen["reference"]):
        assert [len(array) for array in lists["y"]] == [8, 8, 4]
        # onnxruntime may add in another order for another batch size
        np.testing.assert_allclose(np.concatenate(lists["y"]), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate(seen["labels"]), labels)


def test_without_labels_and_reference_it_is_given_none(saved):
    path, x = saved
    assert evaluate(path, x, metric=lambda outputs, labels, reference: labels is reference is None).value == 1


def test_labels_may_be_of_any_kind(saved):
    path, x = saved
    words = np.array([f"w{i}" for i in range(20)])
    metrics = evaluate(
        path, {"x": x, "labels": words}, metric=lambda outputs, labels, reference: sum(map(len, labels))
    )
    assert metrics.values == {"<lambda>": 20} and not metrics.notes


def test_it_is_what_the_report_shows(saved):
    path, x = saved
    labels = Session(path, "cpu").run({"x": x})["y"].argmax(1)
    given = {"evaluation": {"x": x, "labels": labels}, "ratio": 0.5, "provider": "cpu"}
    own, built_in = compress(path, x, metric=accuracy, **given), compress(path, x, **given)
    assert own.report.metric.name == "accuracy" and built_in.report.metric.name == "top1"
    assert own.report.metric.before == 1 and own.report.metric.after == built_in.report.metric.after


@pytest.mark.parametrize(
    "metric, said",
    [
        (lambda outputs, labels, reference: outputs["nope"], "KeyError: 'nope'"),
        (lambda outputs, labels, reference: None, "gave NoneType, not a number"),
        (lambda outputs, labels, reference: float("nan"), "gave nan; return a finite number"),
        (lambda: 1, "TypeError"),
    ],
)
def test_mistakes_are_one_sentence(saved, metric, said):
    path, x = saved
    with pytest.raises(PluginError, match="the metric '<lambda>'") as caught:
        evaluate(path, x, metric=metric)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_function_is_refused_before_any_work(saved, tmp_path):
    with pytest.raises(UsageError, match="name a function"):
        compress(tmp_path / "not there.onnx", metric="math:pi", ratio=0.5)
