"""The tie table op by op: which slots end up in one class, and what is frozen with which reason."""

import time

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.model import load
from onnxprune.units import unit_groups
from onnxprune.units.rules import RULES
from units.nets import parsed

PARAMETERS = {
    "one": np.array([1]),
    "five": np.array([5]),
    "axis": np.array([1]),
    "two": np.array([2]),
    "order": np.array([5, 0, 0, -4]),
    "third": np.array(3),
    "sizes": np.array([2, 4]),
    "widths": np.array([0, 1, 0, 0, 0, 2, 0, 0]),
    "scales": np.float32([1, 1, 2, 2]),
    "doubled": np.float32([1, 2, 1, 1]),
    "space": np.array([2, 3]),
    "times": np.array([1, 1, 2, 2]),
    "larger": np.array([1, 6, 4, 4]),
    "folded": np.array([0, 2, 3, 16]),
    "table": np.float32(np.ones((1, 6, 4, 4))),
    "slope": np.float32(np.ones((6, 1, 1))),
    "low": np.float32(0),
    "parameter": np.float32(np.ones(6)),
}
ALL = [0, 1, 2, 3, 4, 5]


def net(op):
    """`op` from `a`, which has six channels made by one Conv, to `b`; nothing behind it mixes channels."""
    words = op.replace(",", " ").replace(")", " ").replace("(", " ").split()
    return parsed(
        f"""n (float[n, 2, 4, 4] x, int64[1] k) => (float[n, p, q, r] y) {{
        a = Conv (x, w1)  {op}  y = ReduceMean (b, channels) }}""",
        {"w1": (6, 2, 1, 1)},
        channels=np.array([1]),
        **{name: array for name, array in PARAMETERS.items() if name in words},
    )


def labels(groups, name, axis):
    """Classes along one axis of a value."""
    (slots,) = [s.slots for s in groups.sections if s.value.name == name and s.axis == axis]
    return groups.labels[slots]


def ties_of(op):
    """Per channel of `b`, the channel of `a` it is tied to (None: to none), without the reduction behind."""
    model = net(op)
    model.graph.outputs.clear()
    model.graph.remove(list(model.graph)[-1], safe=True)
    groups = unit_groups(model.graph)
    made = list(labels(groups, "w1", 0))
    frozen = [groups.frozen[label] for label in made if label in groups.frozen]
    moved = labels(groups, "b", 1)
    return [made.index(label) if label in made else None for label in moved], frozen


@pytest.mark.parametrize(
    ("op", "sources"),
    [
        ("b = Identity (a)", ALL),
        ("b = Dropout (a)", ALL),
        ("b = Clip (a, low)", ALL),
        ("b = PRelu (a, slope)", ALL),
        ("c = Greater (a, table) b = Where (c, a, table)", ALL),
        ("b = Pow (a, slope)", ALL),
        ("b = BatchNormalization (a, parameter, parameter, parameter, parameter)", ALL),
        ("b = InstanceNormalization (a, parameter, parameter)", ALL),
        ("b = Slice (a, one, five, axis)", [1, 2, 3, 4]),
        ("b = Gather <axis = 1> (a, order)", [5, 0, 0, 2]),
        ("b = Concat <axis = 1> (a, a)", ALL * 2),
        ("b = Concat <axis = 2> (a, a)", ALL),
        ("b, c = Split <axis = 1> (a, sizes)", [0, 1]),
        ("c, b = Split <axis = 1> (a, sizes)", [2, 3, 4, 5]),
        ("b = Pad (a, widths)", [None, *ALL, None, None]),
        ("b = SpaceToDepth <blocksize = 2> (a)", ALL * 4),
        ('b = SpaceToDepth <blocksize = 2, mode = "CRD"> (a)', [index for index in ALL for _ in range(4)]),
        ('b = Resize <mode = "nearest"> (a, , scales)', ALL),
        ("b = MaxPool <kernel_shape = [2, 2]> (a)", ALL),
        ("b = GlobalMaxPool (a)", ALL),
        ("b = ReduceMax (a, space)", ALL),
        ("b = LpNormalization <axis = 2> (a)", ALL),
        ("b = Softmax <axis = 3> (a)", ALL),
        ("b = Tile (a, times)", ALL),
        ("b = Expand (a, larger)", ALL),
        ("t = Transpose <perm = [0, 2, 3, 1]> (a) b = Transpose <perm = [0, 3, 1, 2]> (t)", ALL),
        ("t = Unsqueeze (a, axis) b = Squeeze (t, axis)", ALL),
    ],
)
def test_where_each_index_comes_from(op, sources):
    assert ties_of(op) == (sources, [])


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (
            "b = LpNormalization <axis = 1> (a)",
            "LpNormalization 'lpnormalization_1' works across axis 1 of 'a'",
        ),
        ("b = Softmax <axis = 1> (a)", "Softmax 'softmax_1' works across axis 1 of 'a'"),
        ("b = CumSum (a, third)", "CumSum 'cumsum_1' has no rule for units"),
        ("b = Slice (a, k, five, axis)", "Slice 'slice_1' works across axis 1 of 'a'"),
        ("b = Slice (a, one, five, k)", "Slice 'slice_1' slices axes that are computed at run time"),
        ("b = Slice (a, one, five, axis, two)", "Slice 'slice_1' works across axis 1 of 'a'"),
        ('b = Resize <mode = "nearest"> (a, , doubled)', "Resize 'resize_1' works across axis 1 of 'a'"),
        ('b = Pad <mode = "reflect"> (a, widths)', "Pad 'pad_1' works across axis 1 of 'a'"),
        (
            "t = Gather <axis = 1> (a, third) b = Unsqueeze (t, axis)",
            "Gather 'gather_1' works across axis 1 of 'a'",
        ),
        ("b, i = MaxPool <kernel_shape = [2, 2]> (a) z = Abs (i)", "MaxPool 'maxpool_1' gives indices"),
        ("s = Shape (a) b = Reshape (a, s)", "Shape 'shape_1' works across axis 1 of 'a'"),
    ],
)
def test_what_is_not_understood_is_frozen_with_its_reason(op, reason):
    groups = unit_groups(net(op).graph)
    frozen = groups.frozen[labels(groups, "w1", 0)[1]]
    assert frozen.startswith(reason)


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("b = Einsum <equation = 'nii->ni'> (a)", "takes a diagonal or has an ellipsis"),
        ("b = Einsum <equation = '...ij->...ji'> (a)", "takes a diagonal or has an ellipsis"),
        ("b = Einsum <equation = 'nij,jk->nik'> (a, w2)", "multiplies by a constant and is no layer"),
        ("b = Einsum <equation = 'nij->ni'> (a)", "works across axis 2 of 'a'"),
    ],
)
def test_an_einsum_that_is_no_product_of_two_is_frozen(op, reason):
    text = (
        f"n (float[n, 4, 4] x) => (float y) {{ a = MatMul (x, w1)  {op}  y = ReduceMax <keepdims = 0> (b) }}"
    )
    model = parsed(text.replace("'", '"'), {"w1": (4, 4), "w2": (4, 2)})
    groups = unit_groups(model.graph)
    assert reason in groups.frozen[labels(groups, "w1", 1)[0]]


def test_flattening_keeps_the_channels_that_are_free_beside_those_that_are_not():
    model = parsed(
        """n (float[n, 2, 3, 4] x) => (float[n, 2] y) {
        a = Conv (x, w1)  b = Concat <axis = 1> (x, a)  c = Flatten (b)  y = Gemm (c, w2) }""",
        {"w1": (5, 2, 1, 1), "w2": (84, 2)},
    )
    groups = unit_groups(model.graph)
    made = labels(groups, "w1", 0)
    assert set(made) <= set(groups.units)
    np.testing.assert_array_equal(labels(groups, "w2", 0)[24:], np.repeat(made, 12))


def test_groups_of_channels_are_cut_within_each_group():
    model = parsed(
        """n (float[n, 2, 3, 4] x) => (float[n, 2, 3, 4] y) {
        a = Conv (x, w1)  b = Reshape (a, apart)  c = Transpose <perm = [0, 2, 1, 3, 4]> (b)
        d = Reshape (c, joined)  y = Conv (d, w2) }""",
        {"w1": (10, 2, 1, 1), "w2": (2, 10, 1, 1)},
        apart=np.array([0, 2, 5, 3, 4]),
        joined=np.array([0, 10, 3, 4]),
    )
    groups = unit_groups(model.graph)
    made = labels(groups, "w1", 0)
    assert len(set(made)) == 5
    np.testing.assert_array_equal(made[:5], made[5:])
    np.testing.assert_array_equal(labels(groups, "w2", 1), np.repeat(made[:5], 2))


def test_a_shape_that_is_read_for_its_batch_freezes_the_batch_only():
    model = parsed(
        """n (float[n, 2, 4, 4] x) => (float[n, 3] y) {
        a = Conv (x, w1)  s = Shape (a)  m = Gather (s, zero)  t = Concat <axis = 0> (m, rest)
        b = Reshape (a, t)  y = Gemm (b, w2) }""",
        {"w1": (6, 2, 1, 1), "w2": (96, 3)},
        zero=np.array([0]),
        rest=np.array([-1]),
    )
    list(model.graph)[4].outputs[0].shape = ir.Shape(["n", 96])  # ONNX's inference does not see that n is n
    groups = unit_groups(model.graph)
    np.testing.assert_array_equal(np.repeat(labels(groups, "w1", 0), 16), labels(groups, "w2", 0))
    assert set(labels(groups, "w1", 0)) <= set(groups.units)


@pytest.mark.parametrize("perm", [None, [0, 2, 3, 1]])
def test_flattening_repeats_the_channels_in_either_layout(perm):
    transpose = f"b = Transpose <perm = {perm}> (a)" if perm else "b = Identity (a)"
    model = parsed(
        f"""n (float[n, 2, 3, 4] x) => (float[n, 2] y) {{
        a = Conv (x, w1)  {transpose}  c = Flatten (b)  y = Gemm (c, w2) }}""",
        {"w1": (5, 2, 1, 1), "w2": (60, 2)},
    )
    groups = unit_groups(model.graph)
    made = labels(groups, "w1", 0)
    expected = np.tile(made, 12) if perm else np.repeat(made, 12)
    np.testing.assert_array_equal(labels(groups, "w2", 0), expected)
    assert set(made) <= set(groups.units)


def test_depthwise_ties_each_channel_to_its_own_outputs_and_one_channel_is_not_depthwise():
    model = parsed(
        """n (float[n, 1, 4, 4] x) => (float[n, 2, 4, 4] y) {
        a = Conv (x, w1)  b = Conv <group = 3> (a, w2, b2)  y = Conv (b, w3) }""",
        {"w1": (3, 1, 1, 1), "w2": (6, 1, 1, 1), "b2": (6,), "w3": (2, 6, 1, 1)},
    )
    groups = unit_groups(model.graph)
    made = labels(groups, "w1", 0)
    for name, axis in (("w2", 0), ("b2", 0), ("w3", 1)):
        np.testing.assert_array_equal(labels(groups, name, axis), np.repeat(made, 2))
    assert set(made) <= set(groups.units)
    assert groups.frozen[labels(groups, "w1", 1)[0]] == "'x' is an input of the model"


def test_members_of_a_unit_by_role():
    model = parsed(
        """n (float[n, 4] x) => (float[n, 2] y) {
        a = Gemm <transB = 1> (x, w1, b1)  b = Relu (a)  y = MatMul (b, w2) }""",
        {"w1": (3, 4), "b1": (3,), "w2": (3, 2)},
    )
    groups = unit_groups(model.graph)
    members = groups.members(labels(groups, "w1", 0)[1])
    assert {(m.section.role, m.section.value.name, m.section.axis, *m.indices) for m in members} == {
        ("produced", "w1", 0, 1),
        ("produced", "b1", 0, 1),
        ("carried", "a", 1, 1),
        ("carried", "b", 1, 1),
        ("consumed", "w2", 0, 1),
    }


def test_one_weight_on_two_axes_ties_both():
    model = parsed(
        """n (float[n, 4] x) => (float[n, 2] y) {
        a = Gemm (x, w1)  b = Gemm (a, w)  c = Gemm <transB = 1> (b, w)  y = Gemm (c, w2) }""",
        {"w1": (4, 3), "w": (3, 5), "w2": (3, 2)},
    )
    groups = unit_groups(model.graph)
    np.testing.assert_array_equal(labels(groups, "w1", 1), labels(groups, "w2", 0))
    np.testing.assert_array_equal(labels(groups, "w", 0), labels(groups, "w2", 0))


def test_every_rule_is_of_an_op_that_exists():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert set(RULES) <= known


def test_a_net_of_a_hundred_thousand_slots_takes_seconds_at_most(shared):
    model = load(shared / "models" / "mobilenetv2_100_224.onnx").ir
    start = time.perf_counter()
    groups = unit_groups(model.graph)
    # measured 0.4 s on a loaded 2-core machine
    assert time.perf_counter() - start < 5
    assert len(groups.units) > 1000
