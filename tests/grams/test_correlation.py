"""Grams by correlation against patches taken by hand: any kernels, dilations, pads, groups and sizes."""

from itertools import product
from math import prod

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny import relative
from units.nets import parsed, run

from onnxprune.emit import Emitter
from onnxprune.grams import Correlation, Sliding
from onnxprune.layers import find_layers

# Sums of at most 10,000 products of either sign: each is rounded, and so are the partial sums.
ROUNDING = {"double": 1e-13, "float": 1e-5}
TYPES = {"double": ir.DataType.DOUBLE, "float": ir.DataType.FLOAT}


@st.composite
def slidings(draw):
    """One to three axes; kernels beyond the map and outputs of one position among them."""
    rank = draw(st.integers(1, 3))
    axes = []
    for _ in range(rank):
        kernel, dilation = draw(st.integers(1, 5 if rank < 3 else 3)), draw(st.integers(1, 3))
        size, begin, end = draw(st.integers(1, 7)), draw(st.integers(0, 6)), draw(st.integers(0, 6))
        missing = (kernel - 1) * dilation + 1 - size - begin - end
        axes.append((kernel, dilation, begin + max(0, missing), end, size))
    return Sliding(draw(st.integers(1, 3)), draw(st.integers(1, 3)), *zip(*axes, strict=True))


def patches(x, sliding):
    """[groups, d_in, rows] by slicing, one offset after another."""
    padding = [(0, 0), (0, 0), *zip(sliding.begins, sliding.ends, strict=True)]
    padded, parts = np.pad(x.astype(np.float64), padding), []
    for offset in product(*map(range, sliding.kernel)):
        axes = zip(offset, sliding.dilations, sliding.outputs, strict=True)
        part = padded[(..., *(slice(a * step, a * step + size) for a, step, size in axes))]
        parts.append(part.reshape(len(x), sliding.groups, sliding.channels, -1))
    return np.stack(parts, 3).transpose(1, 2, 3, 0, 4).reshape(sliding.groups, sliding.width, -1)


def correlated(sliding, x, dtype="double"):
    """Gram and sum of patches, run."""
    shape = [None, x.shape[1], *sliding.sizes]
    value = ir.val("x", dtype=TYPES[dtype], shape=shape)
    graph = ir.Graph([value], [], nodes=[], opset_imports={"": 18}, name="test")
    correlation = Correlation(sliding)
    made = correlation.emit(Emitter(graph, "test"), value)
    for name, output in zip(("products", "sum"), made, strict=True):
        output.name, output.dtype = name, TYPES[dtype]
        graph.outputs.append(output)
    found = run(ir.Model(graph, ir_version=10), {"x": x})
    assert found["products"].shape[1] == correlation.number
    return correlation.gram(found["products"]), found["sum"]


def drawn(sliding, samples, dtype=np.float64, seed=0):
    shape = (samples, sliding.groups * sliding.channels, *sliding.sizes)
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@settings(max_examples=80, deadline=None)
@given(slidings(), st.integers(1, 3))
def test_gram_and_sum_are_those_of_the_patches(sliding, samples):
    assume(Correlation(sliding).number)  # else all patches are padding
    x = drawn(sliding, samples)
    gram, total = correlated(sliding, x)
    a = patches(x, sliding)
    assert a.shape[2] == samples * prod(sliding.outputs)
    # of the largest entry: where all of the patches is padding, the gram is zero
    np.testing.assert_allclose(gram, a @ a.transpose(0, 2, 1), rtol=0, atol=ROUNDING["double"] * (a**2).sum())
    np.testing.assert_allclose(total, a.sum(2), rtol=0, atol=ROUNDING["double"] * np.abs(a).sum())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    "sliding",
    [
        Sliding(1, 8, (3, 3), (1, 1), (1, 1), (1, 1), (16, 16)),
        Sliding(4, 2, (5, 3), (1, 2), (0, 3), (4, 1), (9, 12)),
        Sliding(6, 1, (7, 7), (1, 1), (3, 3), (3, 3), (6, 6)),
    ],
)
def test_as_exact_as_the_patches_themselves(sliding, dtype):
    """What is subtracted are borders, less than what they are subtracted from."""
    x = drawn(sliding, 4, np.float64 if dtype == "double" else np.float32) + 3  # a mean makes all sums large
    x = x.astype(np.float64 if dtype == "double" else np.float32)
    gram, total = correlated(sliding, x, dtype)
    a = patches(x, sliding)
    assert relative(gram, a @ a.transpose(0, 2, 1)) < ROUNDING[dtype]
    assert relative(total, a.sum(2)) < ROUNDING[dtype]


def test_products_are_half_of_the_differences_and_their_borders():
    sliding = Sliding(1, 1, (3, 3), (1, 1), (1, 1), (1, 1), (32, 32))
    correlation = Correlation(sliding)
    # of an axis's pieces 3 reach into the image for a difference of 0, else 1; of the pairs half is needed
    assert correlation.number == ((3 + 4 * 1) ** 2 - 3**2) // 2 + 3**2
    assert correlation.sides == (3, 5)  # 15 products over the whole image, of which 13 are wanted
    assert correlation.pixels < 32**2


def test_windows_with_gaps_between_them_have_no_whole_products():
    assert Correlation(Sliding(1, 1, (2,), (3,), (0,), (0,), (5,))).sides == (0, 0)
    assert Correlation(Sliding(1, 1, (2,), (3,), (0,), (0,), (6,))).sides == (2, 1)


# -- what a Conv reads
# ------------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": ("[n,2,6,5]", "", (3, 2, 3, 2), 1),
    "pads, dilations, groups": ("[n,4,6,5]", "group=2, pads=[2,0,1,3], dilations=[2,1]", (2, 2, 3, 2), 2),
    "depthwise, 1-d": ("[n,3,7]", "group=3, pads=[1,2]", (3, 1, 4), 3),
    "3-d": ("[n,1,3,4,3]", "pads=[1,0,1,0,1,0]", (2, 1, 2, 2, 3), 1),
    "same upper": ("[n,2,6,5]", 'auto_pad="SAME_UPPER"', (3, 2, 4, 2), 1),
    "same lower": ("[n,2,6,5]", 'auto_pad="SAME_LOWER"', (3, 2, 4, 2), 1),
    "valid": ("[n,2,6,5]", 'auto_pad="VALID", strides=[1,1]', (3, 2, 2, 2), 1),
}


def layer_of(given, nodes, weights):
    sizes = ",".join(f"o{axis}" for axis in range(given.count(",") + 1))
    model = parsed(f"net (float{given} x) => (float[{sizes}] y) {{ {nodes} }}", weights)
    return model, next(iter(find_layers(model.graph)))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_what_slides_is_read_off_the_node(name):
    given, attributes, shape, groups = CONVOLUTIONS[name]
    node = f"y = Conv<{attributes}>(x, w)" if attributes else "y = Conv(x, w)"
    model, layer = layer_of(given, node, {"w": shape})
    sliding = Sliding.of(layer.window, layer.uses[0].input.shape)
    assert (sliding.groups, sliding.width) == (groups, layer.d_in)
    x = drawn(sliding, 2, np.float32)
    features = layer.features(Emitter(model.graph, "test"), layer.uses[0].input)
    features.name, features.dtype = "features", ir.DataType.FLOAT
    model.graph.outputs.append(features)
    out = run(model, {"x": x})
    assert out["y"].shape[2:] == sliding.outputs
    np.testing.assert_array_equal(patches(x, sliding), out["features"])


@pytest.mark.parametrize(
    "given, node, weights",
    [
        ("[n,2,6,5]", "y = Conv<strides=[1,2]>(x, w)", {"w": (3, 2, 3, 2)}),
        ("[n,2,h,5]", "y = Conv(x, w)", {"w": (3, 2, 3, 2)}),
        ("[n,2,6,5]", "y = ConvTranspose(x, w)", {"w": (2, 3, 3, 2)}),
    ],
)
def test_other_convolutions_do_not_slide(given, node, weights):
    _, layer = layer_of(given, node, weights)
    assert Sliding.of(layer.window, layer.uses[0].input.shape) is None


def test_a_matrix_has_no_window():
    _, layer = layer_of("[n,5]", "y = Gemm(x, w)", {"w": (5, 3)})
    assert layer.window is None
