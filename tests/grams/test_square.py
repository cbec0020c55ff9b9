"""Rows times themselves, in halves or whole."""

import numpy as np
import onnx_ir as ir
import pytest
from tiny import relative
from units.nets import run

from onnxprune.emit import Emitter
from onnxprune.grams.square import halvings, square

FLOAT32 = 1e-6  # sums of 20 float32 products


@pytest.mark.parametrize("width, depth", [(1, 0), (255, 0), (256, 1), (511, 1), (513, 2), (1100, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_square_is_the_sum_of_products_over_rows(width, depth, groups):
    x = np.random.default_rng(width).standard_normal((groups, width, 20)).astype(np.float32)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="test")
    op = Emitter(graph, "test")
    result = square(op, op.constant(x), groups, width)
    result.name, result.dtype = "result", ir.DataType.FLOAT
    graph.outputs.append(result)
    got = run(ir.Model(graph, ir_version=10), {})["result"]
    assert halvings(width) == depth
    assert relative(got, np.einsum("gir,gjr->gij", x, x, dtype=np.float64, optimize=True)) < FLOAT32
