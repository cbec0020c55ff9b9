"""Units of graphs that are only half understood: a clear sentence, or the other half is pruned."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tiny import samples
from units.nets import parsed

from onnxprune.errors import BudgetError
from onnxprune.model import load
from onnxprune.pipeline import compress

FAST = {"provider": "cpu", "score": "norm"}
WEIGHTS = {"w0": (6, 8), "b0": (8,), "w1": (8, 8), "b1": (8,), "w2": (8, 4), "b2": (4,)}


def test_an_op_without_rule_in_the_middle_keeps_what_it_touches(tmp_path):
    """CumSum along the channels: its input and output stay, what is before and after goes."""
    model = parsed(
        """net (float[n,6] x) => (float[n,4] y) {
            [zero] z = Gemm(x, w0, b0)
            r = Relu(z)
            [one] h = Gemm(r, w1, b1)
            c = CumSum(h, axis)
            [two] i = Gemm(c, w3, b3)
            k = Relu(i)
            [three] y = Gemm(k, w2, b2)
        }""",
        {**WEIGHTS, "w3": (8, 8), "b3": (8,)},
        axis=np.array(1),
    )
    report = compress(load(model), samples((6,), 32), output=tmp_path / "out.onnx", units=0.5, **FAST).report
    assert {row.name for row in report.units} == {"zero", "two"}
    assert "CumSum" in {entry.name: entry.reason for entry in report.skipped}["one"]


def test_an_if_around_half_of_the_network(tmp_path):
    """What a branch reads stays; the layers outside are pruned."""
    model = parsed(
        """net (float[n,6] x, bool b) => (float[n,4] y) {
            [one] h = Gemm(x, w0, b0)
            a = Relu(h)
            [two] k = Gemm(a, w1, b1)
            r = Relu(k)
            y = If (b) <
                then_branch = yes () => (float[n,4] t) { t = Gemm(r, w2, b2) },
                else_branch = no () => (float[n,4] e) { m = Gemm(r, w2, b2)  e = Neg(m) }
            >
        }""",
        WEIGHTS,
    )
    data = {"x": samples((6,), 32), "b": np.array(True)}
    report = compress(load(model), data, output=tmp_path / "out.onnx", units=0.5, **FAST).report
    assert [row.name for row in report.units] == ["one"]
    assert any("read inside a subgraph" in entry.reason for entry in report.skipped)


def test_an_if_around_everything_is_refused_in_one_sentence(tmp_path):
    model = parsed(
        """net (float[n,6] x, bool b) => (float[n,4] y) {
            [one] h = Gemm(x, w0, b0)
            y = If (b) <
                then_branch = yes () => (float[n,4] t) { t = Gemm(h, w2, b2) },
                else_branch = no () => (float[n,4] e) { m = Gemm(h, w2, b2)  e = Neg(m) }
            >
        }""",
        {key: WEIGHTS[key] for key in ("w0", "b0", "w2", "b2")},
    )
    data = {"x": samples((6,), 8), "b": np.array(True)}
    with pytest.raises(BudgetError, match=r"no unit can be removed: .*read inside a subgraph") as raised:
        compress(load(model), data, output=tmp_path / "out.onnx", units=0.5, **FAST)
    assert "\n" not in str(raised.value) and not (tmp_path / "out.onnx").exists()


def test_weights_in_constant_nodes_are_units_too(tmp_path):
    """All of PaddleOCR's files are like that."""
    model = parsed(
        """net (float[n,6] x) => (float[n,4] y) {
            [one] h = Gemm(x, w0, b0)
            a = Relu(h)
            [two] y = Gemm(a, w2, b2)
        }""",
        {key: WEIGHTS[key] for key in ("w0", "b0", "w2", "b2")},
    )
    proto = ir.to_proto(model)
    constants = [
        onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in proto.graph.initializer
    ]
    del proto.graph.initializer[:]
    nodes = [*constants, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    report = compress(load(proto), samples((6,), 32), output=tmp_path / "out.onnx", units=0.5, **FAST).report
    assert [(row.name, row.kept) for row in report.units] == [("one", 4)]
