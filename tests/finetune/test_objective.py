"""What is minimised, against the formulas written out in float64."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from units.nets import parsed

from onnxprune.data import open_data
from onnxprune.errors import DataError, ModelError, UsageError
from onnxprune.finetune.objective import Objective, check_labels, objective_of
from onnxprune.options import resolve_training

RNG = np.random.default_rng(0)
S, T = RNG.normal(size=(2, 5, 4)), RNG.normal(size=(2, 5, 4))


def network(end: str = "p = Softmax(y)", shape: str = "float[n,4] p") -> ir.Model:
    """X [n, 3] times a weight, and then `end`."""
    return parsed(f"net (float[n,3] x) => ({shape}) {{ y = MatMul(x, w)  {end} }}", {"w": (3, 4)})


def data_for(model: ir.Model, labels: np.ndarray | None = None):
    arrays = {"x": np.zeros((5, 3), np.float32)} | ({} if labels is None else {"labels": labels})
    return open_data(arrays, model.graph.inputs)


def made(end: str, shape: str = "float[n,4] p", **options: object) -> Objective:
    model = network(end, shape)
    teacher = None if options.get("objective") == "labels" else model.graph
    return objective_of(model.graph, teacher, data_for(model, np.arange(5) % 4), resolve_training(**options))


def value(
    objective: Objective, s: np.ndarray, t: np.ndarray | None, labels: np.ndarray | None = None
) -> float:
    targets = () if t is None else (torch.tensor(t),)
    objective.calibrate(targets)
    return float(objective((torch.tensor(s),), targets, None if labels is None else torch.tensor(labels)))


def test_the_value_in_front_of_a_softmax_is_compared() -> None:
    objective = made("p = Softmax(y)")
    assert (objective.student, objective.teacher) == (["y"], ["y"])


@pytest.mark.parametrize("heat", [1.0, 3.0])
def test_distillation_of_a_classifier(heat: float) -> None:
    objective = made("p = Softmax(y)", temperature=heat)
    p, logs = softmax(T[0] / heat, -1), log_softmax(T[0] / heat, -1) - log_softmax(S[0] / heat, -1)
    assert value(objective, S[0], T[0]) == pytest.approx(heat**2 * (p * logs).sum(-1).mean(), rel=1e-12)
    assert value(objective, T[0], T[0]) == pytest.approx(0, abs=1e-12)


def test_distillation_over_an_axis_that_is_not_the_last() -> None:
    model = parsed(
        """net (float[n,3] x) => (float[n,4,1] p) {
            y = MatMul(x, w)  q = Unsqueeze(y, two)  p = Softmax<axis=1>(q)
        }""",
        {"w": (3, 4)},
        two=np.array([2]),
    )
    objective = objective_of(model.graph, model.graph, data_for(model), resolve_training(temperature=1.0))
    s, t = S.transpose(1, 2, 0), T.transpose(1, 2, 0)  # [5, 4, 2]: classes in the middle
    want = (softmax(t, 1) * (log_softmax(t, 1) - log_softmax(s, 1))).sum(1).mean()
    assert value(objective, s, t) == pytest.approx(want, rel=1e-12)


def test_distillation_of_a_sigmoid() -> None:
    objective = made("p = Sigmoid(y)", loss="cross-entropy", temperature=2.0)
    p, q = expit(T[0] / 2), expit(S[0] / 2)
    want = 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    assert value(objective, S[0], T[0]) == pytest.approx(want, rel=1e-10)


def test_distillation_of_any_other_output_has_the_teacher_s_unit() -> None:
    objective = made("p = Tanh(y)", loss="gaussian")
    want = 0.5 * ((S - T) ** 2).mean() / (T**2).mean()
    assert value(objective, S, T) == pytest.approx(want, rel=1e-12)
    assert value(objective, 10 * S, 10 * T) == pytest.approx(want, rel=1e-12)
    assert np.isfinite(value(objective, S, 0 * T))


def test_labels_alone_and_both() -> None:
    labels = np.array([0, 3, 1, 2, 2])
    want = -log_softmax(S[0], -1)[np.arange(5), labels].mean()
    assert value(made("p = Softmax(y)", objective="labels"), S[0], None, labels) == pytest.approx(
        want, rel=1e-12
    )
    distance = value(made("p = Softmax(y)"), S[0], T[0])
    both = made("p = Softmax(y)", objective="both", balance=0.25)
    assert value(both, S[0], T[0], labels) == pytest.approx(0.75 * want + 0.25 * distance, rel=1e-12)


def test_half_precision_is_widened_before_the_logarithm() -> None:
    objective = made("p = Softmax(y)")
    found = objective((torch.tensor(S[0]).bfloat16(),), (torch.tensor(T[0]).bfloat16(),), None)
    assert found.dtype == torch.float32


# -- what cannot be had


@pytest.mark.parametrize(
    ("end", "options", "labelled", "taught", "word"),
    [
        ("p = Softmax(y)", {"objective": "distillation"}, True, False, "--teacher"),
        ("p = Softmax(y)", {"objective": "both"}, True, False, "--teacher"),
        ("p = Softmax(y)", {}, False, False, "no labels"),
        ("p = Softmax(y)", {"objective": "both"}, False, True, "no labels"),
        ("p = Sigmoid(y)", {"objective": "labels"}, True, False, "0 outputs that classify"),
    ],
)
def test_objectives_without_what_they_need(end, options, labelled, taught, word) -> None:
    model = network(end)
    data = data_for(model, np.zeros(5, int) if labelled else None)
    with pytest.raises(UsageError, match=word):
        objective_of(model.graph, model.graph if taught else None, data, resolve_training(**options))


def test_a_teacher_of_another_form() -> None:
    model = network()
    renamed = network("q = Softmax(y)", "float[n,4] q")
    with pytest.raises(ModelError, match=r"'p'.*no such output"):
        objective_of(model.graph, renamed.graph, data_for(model), resolve_training())
    with pytest.raises(ModelError, match=r"'p'.*another way"):
        objective_of(model.graph, network("p = Sigmoid(y)").graph, data_for(model), resolve_training())


def test_labels_that_do_not_fit() -> None:
    model = network()
    with pytest.raises(DataError, match=r"label 4 is not among .*0\.\.3"):
        check_labels(data_for(model, np.array([0, 1, 4, 2, 3])), 4)
    with pytest.raises(DataError, match=r"float64"):
        check_labels(data_for(model, np.zeros(5)), 4)
    with pytest.raises(DataError, match=r"4 labels for 5 observations"):
        value(made("p = Softmax(y)", objective="labels"), S[0], None, np.zeros(4, np.int64))
