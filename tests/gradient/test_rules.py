"""Every rule against torch's autograd, against finite differences, and in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch

from onnxprune.errors import ModelError
from onnxprune.gradient.rules import NO_GRADIENT, VJP

from .build import backward_model, forward_model, run_onnxruntime, run_reference
from .cases import CASES, Array, Case, Fixed

Run = Callable[[onnx.ModelProto, dict[str, Array]], dict[str, Array]]
ROWS = [pytest.param(op, case, id=f"{op}-{n}") for op, rows in CASES.items() for n, case in enumerate(rows)]

WITH_TORCH = [entry for entry in ROWS if entry.values[1].torch is not None]

# The backward graph runs in float64 in onnxruntime, or where that has no double kernel in onnx.reference.
EXACT = 1e-9
# A float32 sum of a few hundred terms, against float64.
SINGLE = 1e-5
# Central differences of float64 with h = 1e-6: h² truncation and 1e-16/h rounding.
DIFFERENCE = 1e-6


def test_every_rule_has_a_row_and_every_row_a_rule() -> None:
    assert set(CASES) == set(VJP)


def test_no_op_both_has_a_gradient_and_has_none() -> None:
    assert not NO_GRADIENT & set(VJP)


def differentiated(case: Case) -> dict[str, Array]:
    named = {f"x{n}": v for n, v in enumerate(case.inputs) if v is not None and not isinstance(v, Fixed)}
    return {name: np.asarray(v) for name, v in named.items() if np.asarray(v).dtype.kind == "f"}


def seeds(outputs: dict[str, Array]) -> dict[str, Array]:
    rng = np.random.default_rng(11)
    floats = {name: y for name, y in outputs.items() if y.dtype.kind == "f"}
    return {f"seed{name[1:]}": np.asarray(rng.normal(size=y.shape)) for name, y in floats.items()}


def in_single(feeds: dict[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(v, dtype=np.float32) for name, v in feeds.items()}


def by_torch(case: Case, given: dict[str, Array]) -> dict[str, Array]:
    assert case.torch is not None
    leaves = {
        name: torch.tensor(v, dtype=torch.float64, requires_grad=True)
        for name, v in differentiated(case).items()
    }
    result = case.torch(*leaves.values())
    outputs = result if isinstance(result, tuple) else (result,)
    grads = [torch.tensor(given[f"seed{n}"], dtype=torch.float64) for n in range(len(outputs))]
    found = torch.autograd.grad(outputs, list(leaves.values()), grads)
    return {f"grad_{name}": grad.numpy() for name, grad in zip(leaves, found, strict=True)}


def close(found: dict[str, Array], right: dict[str, Array], tolerance: float) -> None:
    for name, want in right.items():
        got = found[name]
        assert got.shape == want.shape, name
        assert np.abs(got - want).max(initial=0) <= tolerance * max(1.0, np.abs(want).max(initial=0)), name


@pytest.mark.parametrize(("op", "case"), [r for r in WITH_TORCH if not r.values[1].single])
def test_rule_in_double(op: str, case: Case) -> None:
    """In onnxruntime, or in onnx.reference where that has no double kernel of an op in the graph."""
    model, feeds = forward_model(op, case, np.float64, False)
    backward, gradients = backward_model(model)
    assert not gradients.blocked
    try:
        given = seeds(run_onnxruntime(model, feeds))
        found = run_onnxruntime(backward, feeds | given)
    except ModelError:
        given = seeds(run_reference(model, feeds))
        found = run_reference(backward, feeds | given)
    close(found, by_torch(case, given), EXACT)


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize(("op", "case"), WITH_TORCH)
def test_rule_in_onnxruntime(op: str, case: Case, symbolic: bool) -> None:
    model, feeds = forward_model(op, case, np.float32, symbolic)
    backward, gradients = backward_model(model)
    assert not gradients.blocked
    given = in_single(seeds(run_onnxruntime(model, feeds)))
    close(run_onnxruntime(backward, feeds | given), by_torch(case, given), SINGLE)


# Inputs that a model may compute at run time: shapes, axes, bounds, indices, scales.
LATE = {
    **dict.fromkeys(("CumSum", "Expand", "Gather", "GatherElements", "GatherND", "Reshape", "Split"), (1,)),
    **dict.fromkeys(("ScatterElements", "ScatterND", "Squeeze", "Tile", "TopK", "Trilu", "Unsqueeze"), (1,)),
    **dict.fromkeys((op for op in CASES if op.startswith("Reduce")), (1,)),
    "Clip": (1, 2),
    "Pad": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2),
    "Where": (0,),
}


@pytest.mark.parametrize(("op", "case"), [r for r in ROWS if r.values[0] in LATE])
def test_rule_with_run_time_arguments(op: str, case: Case) -> None:
    late = [n for n in LATE[op] if n < len(case.inputs) and f"x{n}" not in differentiated(case)]
    model, feeds = forward_model(op, case, np.float32, False, late)
    backward, gradients = backward_model(model)
    assert not gradients.blocked
    given = in_single(seeds(run_onnxruntime(model, feeds)))
    found = run_onnxruntime(backward, feeds | given)
    # the row with constants is checked against torch and differences above
    constant, feeds = forward_model(op, case, np.float32, False)
    right = run_onnxruntime(backward_model(constant)[0], feeds | given)
    close(found, {name: g for name, g in right.items() if name.startswith("grad_")}, SINGLE)


def slopes(
    run: Run, model: onnx.ModelProto, backward: onnx.ModelProto, feeds: dict[str, Array], step: float
) -> tuple[float, float]:
    """∂⟨seed, y⟩ along a random direction: by central differences, and from the gradient."""
    rng = np.random.default_rng(5)
    along = {name: rng.normal(size=v.shape).astype(v.dtype) for name, v in feeds.items()}
    given = {name: g.astype(next(iter(feeds.values())).dtype) for name, g in seeds(run(model, feeds)).items()}
    ends = [
        run(model, {name: v + sign * step * along[name] for name, v in feeds.items()}) for sign in (1, -1)
    ]
    change = sum(np.sum(g * (ends[0][f"y{name[4:]}"] - ends[1][f"y{name[4:]}"])) for name, g in given.items())
    grads = run(backward, feeds | given)
    return float(change / (2 * step)), float(
        sum(np.sum(grads[f"grad_{name}"] * v) for name, v in along.items())
    )


# Where a function has a kink just at the point of a row: central differences have no meaning there.
KINKS = {("Max", 2), ("Max", 3), ("Min", 1), ("ReduceMax", 4)}
# What onnx.reference cannot be asked is asked of onnxruntime, in float32.
NOT_IN_REFERENCE = {
    "CastLike": "its result is float32, too coarse for a small step",
    "Gelu": "its function body calls an Erf right to 2e-8 only",
    "GroupNormalization": "its function body computes in float32",
    "LRN": "it walks over as many channels as there are samples",
    "LpNormalization": "p = 1 divides by the sum without absolute values",
    "MaxPool": "strides left out are taken for the kernel's size",
    "MeanVarianceNormalization": "its function body is in float32",
}


@pytest.mark.parametrize(("op", "case"), ROWS)
def test_finite_differences(op: str, case: Case, request: pytest.FixtureRequest) -> None:
    if (op, int(request.node.callspec.id.rpartition("-")[2])) in KINKS:
        pytest.skip("a tie")
    if op in NOT_IN_REFERENCE:
        # a step of 1e-3 in float32: rounding 1e-7/1e-3 an entry, which the sum over entries multiplies
        run, dtype, step, tolerance = run_onnxruntime, np.float32, 1e-3, 1e-2
    else:
        run, dtype, step, tolerance = run_reference, np.float64, 1e-6, DIFFERENCE
    model, feeds = forward_model(op, case, dtype, False)
    measured, found = slopes(run, model, backward_model(model)[0], feeds, step)
    assert found == pytest.approx(measured, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize("case", [pytest.param(c, id=str(n)) for n, c in enumerate(CASES["Resize"])])
def test_resize_is_the_adjoint_of_what_onnxruntime_does(case: Case, symbolic: bool) -> None:
    """onnx.reference places some samples elsewhere. Resize is linear: a difference with step 1 is exact."""
    model, feeds = forward_model("Resize", case, np.float32, symbolic)
    measured, found = slopes(run_onnxruntime, model, backward_model(model)[0], feeds, 1.0)
    assert found == pytest.approx(measured, rel=1e-4, abs=1e-4)  # float32 sums of 300 terms, some cancelling
