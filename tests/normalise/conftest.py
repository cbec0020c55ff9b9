"""Fixtures of the normaliser's tests."""

from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxprune.model import Model, load
from onnxprune.session import Session

# Folding rounds once more than the original did: a few ulp of fp32 a layer, outputs being of order 1 to 10.
TOLERANCE = 2e-5


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def parse(rng: np.random.Generator) -> Callable[..., onnx.ModelProto]:
    """Text of a graph → model; `weights` become initializers (a shape: random numbers of that shape)."""

    def build(body: str, opset: int = 18, ir_version: int = 8, **weights: object) -> onnx.ModelProto:
        text = f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {body}'
        model = onnx.parser.parse_model(text)
        for name, given in weights.items():
            array = rng.standard_normal(given).astype(np.float32) if isinstance(given, tuple) else given
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
        return model

    return build


@pytest.fixture
def unchanged(rng: np.random.Generator) -> Callable[..., Model]:
    """Load a message and hold what it computes against the original in onnxruntime; the loaded model."""

    def check(proto: onnx.ModelProto, tolerance: float = TOLERANCE, **feeds: np.ndarray) -> Model:
        for value in proto.graph.input:
            sizes = [axis.dim_value if axis.dim_value > 0 else 3 for axis in value.type.tensor_type.shape.dim]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            feeds.setdefault(value.name, rng.standard_normal(sizes).astype(dtype))
        model = load(proto)
        want = Session(proto.SerializeToString(), "cpu", optimise=False).run(feeds)
        got = Session(model.ir, "cpu", optimise=False).run(feeds)
        assert list(got) == list(want)
        for name in want:
            np.testing.assert_allclose(got[name], want[name], rtol=tolerance, atol=tolerance, err_msg=name)
        return model

    return check


@pytest.fixture
def ops() -> Callable[[Model], list[str]]:
    return lambda model: [node.op_type for node in model.graph]
