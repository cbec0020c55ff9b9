"""Every function against onnxruntime and torch's own; its gradient against our ONNX gradient graph."""

from __future__ import annotations

import inspect
from inspect import Parameter as Kind
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from gradient.build import backward_model, forward_model, run_onnxruntime
from gradient.cases import CASES, Array, Case
from gradient.test_rules import DIFFERENCE, LATE, ROWS, differentiated, in_single, seeds

from onnxprune.finetune import to_module
from onnxprune.finetune.ops import FUNCTIONS, LIKE, NUMBERS, SEVERAL, VECTORS
from onnxprune.gradient.rules import NO_GRADIENT, VJP

# A float32 sum of a few hundred terms, in another order.
SINGLE = 1e-5
# The same sum in float64; what is left are attributes that ONNX stores in float32.
DOUBLE = 1e-12

WITHOUT = {
    "Constant": "normalised away",
    "NonMaxSuppression": "no network is trained through a choice of boxes",
}


def test_every_op_with_a_gradient_or_none_by_definition_has_a_function() -> None:
    assert (set(VJP) | set(NO_GRADIENT)) - set(FUNCTIONS) == set(WITHOUT)


def test_what_is_said_of_ops_is_said_of_ops_in_the_table() -> None:
    assert set(VECTORS) | set(NUMBERS) | SEVERAL | LIKE <= set(FUNCTIONS)


@pytest.mark.parametrize(
    "op", sorted(set(FUNCTIONS) - {"BatchNormalization"})
)  # several outputs in training only
def test_functions_take_all_that_an_op_may_have(op: str) -> None:
    """Every input, attribute and output of every form of an op that opset 18 or a newer one has."""
    history = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op and s.domain == ""]
    oldest = max((s.since_version for s in history if s.since_version <= 18), default=18)
    try:
        given = inspect.signature(FUNCTIONS[op]).parameters.values()
    except ValueError:  # torch's own
        given = ()
    names, kinds = {parameter.name for parameter in given}, [parameter.kind for parameter in given]
    places = kinds.count(Kind.POSITIONAL_OR_KEYWORD)
    for schema in (s for s in history if s.since_version >= oldest):
        wanted = {{"to": "dtype"}.get(name, name) for name in schema.attributes}
        assert wanted <= names or Kind.VAR_KEYWORD in kinds, schema.since_version
        if given and Kind.VAR_POSITIONAL not in kinds:
            assert places >= len(schema.inputs), schema.since_version
        assert schema.max_output == 1 or op in SEVERAL


def test_space_to_depth_of_opset_28_undoes_depth_to_space() -> None:
    x = torch.arange(32.0).reshape(1, 8, 2, 2)
    for mode in ("DCR", "CRD"):
        wide = FUNCTIONS["DepthToSpace"](x, blocksize=2, mode=mode)
        assert torch.equal(FUNCTIONS["SpaceToDepth"](wide, blocksize=2, mode=mode), x)


def tensors(feeds: dict[str, Array]) -> list[torch.Tensor]:
    return [torch.tensor(np.ascontiguousarray(array)).reshape(array.shape) for array in feeds.values()]


def run_torch(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    found = to_module(ir.from_proto(model))(*tensors(feeds))
    results = found if isinstance(found, tuple) else (found,)
    names = [output.name for output in model.graph.output]
    return {name: result.numpy() for name, result in zip(names, results, strict=True)}


def close(found: dict[str, Array], right: dict[str, Array], tolerance: float = SINGLE) -> None:
    assert found.keys() == right.keys()
    for name, want in right.items():
        got = found[name]
        assert (got.shape, got.dtype) == (want.shape, want.dtype), name
        scale = max(1.0, np.abs(want).max(initial=0))
        assert np.abs(got.astype(np.float64) - want).max(initial=0) <= tolerance * scale, name


# torch's own function of a row is float64 throughout; these rows are not.
NOT_DOUBLE = {"CastLike": "to float32", "MeanVarianceNormalization": "single only"}


@pytest.mark.parametrize(
    ("op", "case"), [r for r in ROWS if r.values[1].torch and r.values[0] not in NOT_DOUBLE]
)
def test_forward_in_double(op: str, case: Case) -> None:
    model, feeds = forward_model(op, case, np.float64, False)
    assert case.torch is not None
    given = [torch.tensor(array) for array in differentiated(case).values()]
    results = case.torch(*given)
    first = results[0] if isinstance(results, tuple | list) else results
    found = run_torch(model, feeds)
    attributes = 1e-7 if case.attributes else 0.0  # such as HardSigmoid's alpha, which is a float32
    coordinates = 1e-6 if op == "Resize" else 0.0  # float32, as onnxruntime's
    close({"y0": found["y0"]}, {"y0": first.numpy()}, max(DOUBLE, attributes, coordinates))


@pytest.mark.parametrize(("op", "case"), [r for r in ROWS if r.values[0] in LATE])
def test_forward_with_run_time_arguments(op: str, case: Case) -> None:
    late = [n for n in LATE[op] if n < len(case.inputs) and f"x{n}" not in differentiated(case)]
    model, feeds = forward_model(op, case, np.float32, False, late)
    close(run_torch(model, feeds), run_onnxruntime(model, feeds))


@pytest.mark.parametrize(("op", "case"), ROWS)
def test_forward_in_onnxruntime_and_gradient_in_our_graph(op: str, case: Case) -> None:
    model, feeds = forward_model(op, case, np.float32, False)
    backward, gradients = backward_model(model)
    assert not gradients.blocked
    outputs = run_onnxruntime(model, feeds)
    given = in_single(seeds(outputs))
    right = {n: g for n, g in run_onnxruntime(backward, feeds | given).items() if n.startswith("grad_")}

    leaves = dict(zip(feeds, tensors(feeds), strict=True))
    wanted = {
        f"grad_{name}": leaf.requires_grad_() for name, leaf in leaves.items() if f"grad_{name}" in right
    }
    found = to_module(ir.from_proto(model))(*leaves.values())
    results = found if isinstance(found, tuple) else (found,)
    close({name: y.detach().numpy() for name, y in zip(outputs, results, strict=True)}, outputs)
    floats = [result for result in results if result.dtype.is_floating_point]
    grads = torch.autograd.grad(floats, list(wanted.values()), [torch.tensor(g) for g in given.values()])
    close({name: grad.numpy() for name, grad in zip(wanted, grads, strict=True)}, right)


@pytest.mark.parametrize(("op", "case"), ROWS)
def test_nothing_is_made_on_another_device(op: str, case: Case) -> None:
    """The meta device has no numbers: a tensor made on the host, or read back to it, is an error there."""
    model, feeds = forward_model(op, case, np.float32, False)
    found = to_module(ir.from_proto(model)).to("meta")(*(x.to("meta") for x in tensors(feeds)))
    results = found if isinstance(found, tuple) else (found,)
    assert {result.device.type for result in results} == {"meta"}


# -- ops without a gradient: inputs, attributes, compared with onnxruntime

F, I = np.float32, np.int64  # noqa: E741  # short, since a row needs many
HALVES = np.array([-2.5, -1.5, -0.5, 0.0, 0.5, 1.5, 2.5], F)
ODD = np.array([np.nan, np.inf, -np.inf, 1.0], F)
BITS = np.array([1, 6, 200], np.uint8)
TIED = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]], F)
FLAGS = np.array([True, True, False, False]), np.array([True, False, True, False])
OTHERS: list[tuple[str, tuple[Array, ...], dict[str, Any]]] = [
    *((op, FLAGS, {}) for op in ("And", "Or", "Xor", "Equal")),
    ("Not", FLAGS[:1], {}),
    *(
        (op, (TIED, F([2.0, 3.0, 1.0])), {})
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    *((op, (TIED,), {}) for op in ("ArgMax", "ArgMin")),
    *((op, (TIED,), {"axis": 1, "keepdims": 0}) for op in ("ArgMax", "ArgMin")),
    *((op, (TIED,), {"axis": -1, "select_last_index": 1}) for op in ("ArgMax", "ArgMin")),
    ("ArgMin", (np.array([3, -128, 5], np.int8),), {}),  # there is no +128 to look for the largest of
    *((op, (BITS, np.array([3, 2, 1], np.uint8)), {}) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    ("BitwiseNot", (BITS,), {}),
    *(("BitShift", (BITS, np.array([3, 2, 1], np.uint8)), {"direction": way}) for way in ("LEFT", "RIGHT")),
    *((op, (HALVES,), {}) for op in ("Ceil", "Floor", "Round", "Sign")),
    ("ConstantOfShape", (I([2, 3]),), {"value": onnx.numpy_helper.from_array(I([7]))}),
    ("ConstantOfShape", (I([]),), {}),
    ("EyeLike", (TIED,), {"k": 1, "dtype": 7}),
    ("Hardmax", (TIED,), {}),
    ("IsInf", (ODD,), {}),
    ("IsInf", (ODD,), {"detect_negative": 0}),
    ("IsNaN", (ODD,), {}),
    ("Mod", (I([-7, 7, -7]), I([3, -3, -3])), {}),
    ("Mod", (F([-7.5, 7.5]), F([3, -3])), {"fmod": 1}),
    ("NonZero", (TIED,), {}),
    ("OneHot", (I([[0, -1], [2, 9]]), I([3]), F([-1, 5])), {}),
    ("OneHot", (I([[0, -1], [2, -4]]), I([3]), F([-1, 5])), {"axis": 1}),
    ("Range", (I(2), I(9), I(3)), {}),
    ("Range", (F(1.0), F(-1.0), F(-0.5)), {}),
    ("Shape", (TIED,), {}),
    ("Shape", (TIED,), {"start": -1}),
    ("Size", (TIED,), {}),
    ("Cast", (F([-1.7, 0.0, 2.9]),), {"to": 7}),
    ("Cast", (F([-1.7, 0.0, 2.9]),), {"to": 9}),
    ("Cast", (I([0, 3]),), {"to": 1}),
    # forms of ops with a gradient that no gradient reaches
    ("Div", (I([-7, 7, -7]), I([2, -2, -2])), {}),
    ("Pow", (I([2, 3]), F([2.0, 0.5])), {}),
    ("ReduceMean", (np.array([[1, 2], [4, 4]], np.int32),), {"keepdims": 0}),
    ("ReduceSum", (np.array([[1, 2], [4, 4]], np.int32), I([1])), {}),
    (
        "MaxPool",
        (np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4),),
        {"kernel_shape": [3, 3], "pads": [1] * 4},
    ),
    ("ScatterND", (TIED, I([[0, 1], [0, 1]]), F([2.0, 4.0])), {"reduction": "mul"}),
    ("ScatterND", (TIED, I([[1], [-1]]), F([[9, 0, 0], [0, 9, 0]])), {"reduction": "max"}),
    ("ScatterElements", (TIED, I([[2, 2, 0]]), F([[5, -5, 5]])), {"reduction": "min", "axis": 1}),
    ("GatherND", (np.arange(12, dtype=F).reshape(2, 3, 2), I([[0], [2]])), {"batch_dims": 1}),
    ("Gather", (F([1, 2]), I(1)), {}),  # down to a scalar
    ("TopK", (TIED, I([2])), {"outputs": 2}),
    ("Pad", (TIED, I([0, 2, 0, 4])), {"mode": "wrap"}),
    ("LayerNormalization", (TIED, F([1, 2, 3])), {"outputs": 3}),
    ("Reshape", (TIED, I([0, -1, 1])), {}),
    ("Reshape", (np.zeros((0, 3), F), I([3, 0])), {"allowzero": 1}),
    ("Trilu", (np.arange(6, dtype=I).reshape(2, 3), I(-1)), {}),
]


@pytest.mark.parametrize("late", [False, True], ids=["constants", "computed"])
@pytest.mark.parametrize(
    ("op", "inputs", "attributes"), [pytest.param(*row, id=f"{row[0]}-{n}") for n, row in enumerate(OTHERS)]
)
def test_ops_without_gradient(
    op: str, inputs: tuple[Array, ...], attributes: dict[str, Any], late: bool
) -> None:
    case = Case([np.asarray(array) for array in inputs], None, dict(attributes), opset=20)
    outputs = case.attributes.pop("outputs", 1)
    names = [f"x{n}" for n in range(len(inputs))]
    node = onnx.helper.make_node(op, names, [f"y{n}" for n in range(outputs)], **case.attributes)
    arrays = dict(zip(names, map(np.asarray, inputs), strict=True))
    rest = {} if late else dict(list(arrays.items())[1:])
    declared = [
        onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in arrays.items()
        if n not in rest
    ]
    graph = onnx.helper.make_graph(
        [node],
        "g",
        declared,
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [onnx.numpy_helper.from_array(array, name) for name, array in rest.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    feeds = {name: array for name, array in arrays.items() if name not in rest}
    if op == "LayerNormalization" and not late:
        pytest.skip("as a weight its scale is trained: nothing new, and its output wants a gradient")
    close(run_torch(model, feeds), run_onnxruntime(model, feeds))


def test_rows_of_ops_without_gradient_cover_them() -> None:
    drawn = {op for op in FUNCTIONS if "Random" in op} | {"Bernoulli", "Multinomial"}
    assert {row[0] for row in OTHERS} >= NO_GRADIENT - set(WITHOUT) - drawn


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "mean", "deviation"),
    [
        ("RandomNormal", (), {"shape": [100, 100], "mean": 2.0, "scale": 3.0}, 2.0, 3.0),
        ("RandomUniform", (), {"shape": [100, 100], "low": 1.0, "high": 3.0}, 2.0, 2 / 12**0.5),
        ("RandomNormalLike", (np.zeros((100, 100), F),), {}, 0.0, 1.0),
        ("RandomUniformLike", (np.zeros((100, 100), F),), {}, 0.5, 1 / 12**0.5),
        ("Bernoulli", (np.full((100, 100), 0.25, F),), {}, 0.25, 0.1875**0.5),
        (
            "Multinomial",
            (np.log(np.full((100, 2), [0.25, 0.75], F)),),
            {"sample_size": 100},
            0.75,
            0.1875**0.5,
        ),
    ],
)
def test_what_is_drawn_has_the_distribution_asked_for(
    op: str, inputs: tuple[Array, ...], attributes: dict[str, Any], mean: float, deviation: float
) -> None:
    like = {"like": torch.zeros(())} if op in LIKE else {}
    torch.manual_seed(0)
    drawn = FUNCTIONS[op](*(torch.tensor(array) for array in inputs), **attributes, **like).double()
    assert drawn.shape == (100, 100)
    # four standard errors of a mean and of a deviation over 10,000 draws
    assert float(drawn.mean()) == pytest.approx(mean, abs=4 * deviation / 100)
    assert float(drawn.std()) == pytest.approx(deviation, rel=4 / 100)


def test_double_rows_are_as_exact_as_differences_are_not() -> None:
    """The bound above is meant: far below what finite differences could tell."""
    assert DOUBLE < DIFFERENCE


def test_every_row_is_of_an_op_in_the_table() -> None:
    assert set(CASES) <= set(FUNCTIONS)
