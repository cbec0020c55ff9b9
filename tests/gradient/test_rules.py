"""Every rule against torch's autograd, against finite differences, and in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onnxprune.errors import ModelError
from onnxprune.gradient.rules import NO_GRADIENT, VJP

from .build import backward_model, forward_model, in_dtype, run_onnxruntime, run_reference
from .cases import CASES, Array, Case, Fixed

ROWS = [pytest.param(op, case, id=f"{op}-{n}") for op, rows in CASES.items() for n, case in enumerate(rows)]

# The backward graph runs in float64 in onnxruntime, or where that has no double kernel in onnx.reference.
EXACT = 1e-9
# A float32 sum of a few hundred terms, against float64.
SINGLE = 2e-5
# Central differences of float64 with h = 1e-6: h² truncation and 1e-16/h rounding.
DIFFERENCE = 1e-6


def test_every_rule_has_a_row_and_every_row_a_rule() -> None:
    assert set(CASES) == set(VJP)


def test_no_op_both_has_a_gradient_and_has_none() -> None:
    assert not NO_GRADIENT & set(VJP)


def differentiated(case: Case) -> dict[str, Array]:
    named = {f"x{n}": v for n, v in enumerate(case.inputs) if v is not None and not isinstance(v, Fixed)}
    return {name: np.asarray(v) for name, v in named.items() if np.asarray(v).dtype.kind == "f"}


def seeds(case: Case, outputs: dict[str, Array], dtype: type) -> dict[str, Array]:
    rng = np.random.default_rng(11)
    drawn = {name: rng.normal(size=y.shape) for name, y in outputs.items() if y.dtype.kind == "f"}
    return {f"seed{name[1:]}": in_dtype(g, dtype) for name, g in drawn.items() if name.startswith("y")}


def by_torch(case: Case, given: dict[str, Array]) -> dict[str, Array]:
    assert case.torch is not None
    leaves = {name: torch.tensor(v, requires_grad=True) for name, v in differentiated(case).items()}
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


@pytest.mark.parametrize("symbolic", [False, True], ids=["static", "symbolic"])
@pytest.mark.parametrize(("op", "case"), ROWS)
def test_rule(op: str, case: Case, symbolic: bool) -> None:
    model, feeds = forward_model(op, case, np.float64, symbolic)
    backward, gradients = backward_model(model)
    assert not gradients.blocked

    try:
        outputs = run_onnxruntime(model, feeds)
        run = run_onnxruntime
        given = seeds(case, outputs, np.float64)
        exact = run(backward, feeds | given)
    except ModelError:  # onnxruntime has no double kernel of an op in the graph
        run = run_reference
        outputs = run(model, feeds)
        given = seeds(case, outputs, np.float64)
        exact = run(backward, feeds | given)
    if case.torch is not None:
        close(exact, by_torch(case, given), EXACT)

    single, single_feeds = forward_model(op, case, np.float32, symbolic)
    single_seeds = {name: in_dtype(v, np.float32) for name, v in given.items()}
    found = run_onnxruntime(backward_model(single)[0], single_feeds | single_seeds)
    close(found, {name: v for name, v in exact.items() if name.startswith("grad_")}, SINGLE)
