"""One small network for each family of architectures: half of all units removed is half of them silenced."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from onnxprune.cut import Evidence, decide, remove_cut
from onnxprune.data import open_data
from onnxprune.layers import find_layers
from onnxprune.model import load
from onnxprune.options import resolve
from onnxprune.passes.replace import replace_units
from onnxprune.progress import Silent
from onnxprune.statistics import Gathering
from units.nets import assert_same, parsed, run

# The installed package has no benchmarks: this one file of theirs is read where it lies.
KEPT_NORMS = runpy.run_path(str(Path(__file__).resolve().parents[2] / "benchmarks" / "kept_norms.py"))

IMAGE, TOKENS = (2, 3, 8, 8), (2, 5, 8)
HEAD = """p = GlobalAveragePool(last)
    f = Flatten(p)
    [head] y = Gemm(f, wh, bh)"""

# text, weights, integer constants, the layers whose units are cut
NETS = {
    "alexnet: Flatten before Gemm": (
        """[c0] a = Conv<pads=[1,1,1,1]>(x, k0, b0)
        r = Relu(a)
        m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
        [c1] b = Conv(m, k1, b1)
        last = Relu(b)
        f = Flatten(last)
        [head] y = Gemm(f, wh, bh)""",
        {"k0": (8, 3, 3, 3), "b0": (8,), "k1": (6, 8, 1, 1), "b1": (6,), "wh": (96, 5), "bh": (5,)},
        {}, {"c0": 4, "c1": 3},
    ),
    "resnet: residual sums and a projected shortcut": (
        f"""[stem] s = Conv<pads=[1,1,1,1]>(x, k0, b0)
        a = Relu(s)
        [in1] b = Conv<pads=[1,1,1,1]>(a, k1, b1)
        c = Relu(b)
        [out1] d = Conv<pads=[1,1,1,1]>(c, k2, b2)
        e = Add(d, a)
        g = Relu(e)
        [in2] h = Conv<strides=[2,2]>(g, k3, b3)
        [skip] i = Conv<strides=[2,2]>(g, k4, b4)
        last = Add(h, i)
        {HEAD}""",
        {"k0": (6, 3, 3, 3), "b0": (6,), "k1": (8, 6, 3, 3), "b1": (8,), "k2": (6, 8, 3, 3), "b2": (6,),
         "k3": (10, 6, 1, 1), "b3": (10,), "k4": (10, 6, 1, 1), "b4": (10,), "wh": (10, 5), "bh": (5,)},
        {}, {"stem": 3, "in1": 4, "in2": 5},
    ),
    "resnext: grouped convolution": (
        f"""[a0] a = Conv(x, k0, b0)
        b = Relu(a)
        [grouped] c = Conv<pads=[1,1,1,1], group=4>(b, k1, b1)
        d = Relu(c)
        [a2] last = Conv(d, k2, b2)
        {HEAD}""",
        {"k0": (16, 3, 1, 1), "b0": (16,), "k1": (16, 4, 3, 3), "b1": (16,), "k2": (8, 16, 1, 1), "b2": (8,),
         "wh": (8, 5), "bh": (5,)},
        {}, {"a0": 8, "grouped": 8, "a2": 4},
    ),
    "mobilenet v2: depthwise and Clip": (
        f"""[expand] a = Conv(x, k0, b0)
        b = Clip(a, zero, six)
        [dw] c = Conv<pads=[1,1,1,1], group=8>(b, k1, b1)
        d = Clip(c, zero, six)
        [project] last = Conv(d, k2, b2)
        {HEAD}""",
        {"k0": (8, 3, 1, 1), "b0": (8,), "k1": (8, 1, 3, 3), "b1": (8,), "k2": (6, 8, 1, 1), "b2": (6,),
         "wh": (6, 5), "bh": (5,)},
        {"zero": np.float32(0), "six": np.float32(6)}, {"expand": 4, "dw": 4, "project": 3},
    ),
    "mobilenet v3: squeeze-excitation gates": (
        f"""[expand] a = Conv(x, k0, b0)
        b = HardSwish(a)
        q = ReduceMean<keepdims=1>(b, axes)
        [squeeze] q1 = Conv(q, k1, b1)
        q2 = Relu(q1)
        [excite] q3 = Conv(q2, k2, b2)
        gate = HardSigmoid(q3)
        g = Mul(gate, b)
        [project] last = Conv(g, k3, b3)
        {HEAD}""",
        {"k0": (8, 3, 1, 1), "b0": (8,), "k1": (4, 8, 1, 1), "b1": (4,), "k2": (8, 4, 1, 1), "b2": (8,),
         "k3": (6, 8, 1, 1), "b3": (6,), "wh": (6, 5), "bh": (5,)},
        {"axes": np.array([2, 3])}, {"expand": 4, "squeeze": 2, "excite": 4, "project": 3},
    ),
    "squeezenet: fire": (
        f"""[squeeze] a = Conv(x, k0, b0)
        b = Relu(a)
        [e1] c = Conv(b, k1, b1)
        [e3] d = Conv<pads=[1,1,1,1]>(b, k2, b2)
        e = Concat<axis=1>(c, d)
        g = Relu(e)
        [last1] h = Conv(g, k3, b3)
        last = Relu(h)
        {HEAD}""",
        {"k0": (4, 3, 1, 1), "b0": (4,), "k1": (6, 4, 1, 1), "b1": (6,), "k2": (8, 4, 3, 3), "b2": (8,),
         "k3": (6, 14, 1, 1), "b3": (6,), "wh": (6, 5), "bh": (5,)},
        {}, {"squeeze": 2, "e1": 3, "e3": 4, "last1": 3},
    ),
    "googlenet: branches with pools": (
        f"""[b1] a = Conv(x, k0, b0)
        [b2] b = Conv<pads=[2,2,2,2]>(x, k1, b1)
        m = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[1,1]>(x)
        [b3] c = Conv(m, k2, b2)
        last = Concat<axis=1>(a, b, c)
        {HEAD}""",
        {"k0": (4, 3, 1, 1), "b0": (4,), "k1": (6, 3, 5, 5), "b1": (6,), "k2": (2, 3, 1, 1), "b2": (2,),
         "wh": (12, 5), "bh": (5,)},
        {}, {"b1": 2, "b2": 3, "b3": 1},
    ),
    "densenet: everything is concatenated": (
        f"""[d0] a = Conv(x, k0, b0)
        n0 = BatchNormalization(a, g0, h0, m0, v0)
        r0 = Relu(n0)
        [d1] b = Conv<pads=[1,1,1,1]>(r0, k1, b1)
        c = Concat<axis=1>(a, b)
        n1 = BatchNormalization(c, g1, h1, m1, v1)
        r1 = Relu(n1)
        [d2] d = Conv<pads=[1,1,1,1]>(r1, k2, b2)
        last = Concat<axis=1>(c, d)
        {HEAD}""",
        {"k0": (6, 3, 1, 1), "b0": (6,), "k1": (4, 6, 3, 3), "b1": (4,), "k2": (4, 10, 3, 3), "b2": (4,),
         "g0": (6,), "h0": (6,), "m0": (6,), "g1": (10,), "h1": (10,), "m1": (10,), "wh": (14, 5),
         "bh": (5,)},
        {"v0": np.ones(6, np.float32), "v1": np.ones(10, np.float32)}, {"d0": 3, "d1": 2, "d2": 2},
    ),
    "shufflenet: split, depthwise and channel shuffle": (
        f"""[stem] s = Conv(x, k0, b0)
        left, right = Split<axis=1, num_outputs=2>(s)
        [pw] a = Conv(right, k1, b1)
        b = Relu(a)
        [dw] c = Conv<pads=[1,1,1,1], group=6>(b, k2, b2)
        d = Concat<axis=1>(left, c)
        e = Reshape(d, s1)
        g = Transpose<perm=[0,2,1,3,4]>(e)
        h = Reshape(g, s2)
        [pw2] i = Conv(h, k3, b3)
        last = Relu(i)
        {HEAD}""",
        {"k0": (12, 3, 1, 1), "b0": (12,), "k1": (6, 6, 1, 1), "b1": (6,), "k2": (6, 1, 3, 3), "b2": (6,),
         "k3": (8, 12, 1, 1), "b3": (8,), "wh": (8, 5), "bh": (5,)},
        {"s1": np.array([0, 2, 6, 8, 8]), "s2": np.array([0, 12, 8, 8])}, {"pw": 3, "dw": 3, "pw2": 4},
    ),
    "u-net: ConvTranspose and a skip": (
        f"""[down] a = Conv<strides=[2,2], kernel_shape=[2,2]>(x, k0, b0)
        b = Relu(a)
        [up] c = ConvTranspose<strides=[2,2]>(b, k1, b1)
        d = Concat<axis=1>(c, x)
        [mix] last = Conv(d, k2, b2)
        {HEAD}""",
        {"k0": (8, 3, 2, 2), "b0": (8,), "k1": (8, 6, 2, 2), "b1": (6,), "k2": (4, 9, 1, 1), "b2": (4,),
         "wh": (4, 5), "bh": (5,)},
        {}, {"down": 4, "up": 3, "mix": 2},
    ),
    "vit: fused qkv, heads": (
        """[qkv] a = MatMul(x, w0)
        b = Add(a, b0)
        c = Reshape(b, s1)
        d = Transpose<perm=[2,0,3,1,4]>(c)
        q0, k0, v0 = Split<axis=0, num_outputs=3>(d)
        q = Squeeze(q0, zero)
        k = Squeeze(k0, zero)
        v = Squeeze(v0, zero)
        kt = Transpose<perm=[0,1,3,2]>(k)
        e = MatMul(q, kt)
        g = Softmax<axis=-1>(e)
        h = MatMul(g, v)
        i = Transpose<perm=[0,2,1,3]>(h)
        j = Reshape(i, s2)
        [out] o = MatMul(j, w1)
        r = Add(o, x)
        [up] u = MatMul(r, w2)
        u1 = Tanh(u)
        [down] y = MatMul(u1, w3)""",
        {"w0": (8, 24), "b0": (24,), "w1": (8, 8), "w2": (8, 12), "w3": (12, 4)},
        {"s1": np.array([0, 5, 3, 2, 4]), "s2": np.array([0, 5, 8]), "zero": np.array([0])},
        {"qkv": None, "up": 6},
    ),
    "llama: grouped queries and a gated MLP": (
        """[q] q0 = MatMul(x, wq)
        q1 = Reshape(q0, s4)
        q = Transpose<perm=[0,2,1,3]>(q1)
        [k] k0 = MatMul(x, wk)
        k1 = Reshape(k0, s2)
        k2 = Transpose<perm=[0,2,3,1]>(k1)
        [v] v0 = MatMul(x, wv)
        v1 = Reshape(v0, s2)
        v2 = Transpose<perm=[0,2,1,3]>(v1)
        k3 = Unsqueeze(k2, two)
        k4 = Expand(k3, e5)
        k5 = Reshape(k4, s5)
        v3 = Unsqueeze(v2, two)
        v4 = Expand(v3, e6)
        v5 = Reshape(v4, s6)
        a = MatMul(q, k5)
        p = Softmax<axis=-1>(a)
        o = MatMul(p, v5)
        o1 = Transpose<perm=[0,2,1,3]>(o)
        o2 = Reshape(o1, s7)
        [o] r = MatMul(o2, wo)
        [gate] g = MatMul(r, wg)
        g1 = Sigmoid(g)
        g2 = Mul(g, g1)
        [up] u = MatMul(r, wu)
        m = Mul(g2, u)
        [down] y = MatMul(m, wd)""",
        {"wq": (8, 16), "wk": (8, 8), "wv": (8, 8), "wo": (16, 8), "wg": (8, 12), "wu": (8, 12),
         "wd": (12, 4)},
        {"s4": np.array([0, 5, 4, 4]), "s2": np.array([0, 5, 2, 4]), "two": np.array([2]),
         "e5": np.array([1, 2, 2, 4, 5]), "s5": np.array([0, 4, 4, 5]), "e6": np.array([1, 2, 2, 5, 4]),
         "s6": np.array([0, 4, 5, 4]), "s7": np.array([0, 5, 16])},
        {"gate": 6, "up": 6},
    ),
    "convnext: depthwise, LayerNorm in between, layer scale": (
        """[stem] s = Conv<strides=[2,2], kernel_shape=[2,2]>(x, k0, b0)
        [dw] a = Conv<pads=[1,1,1,1], group=6>(s, k1, b1)
        b = Transpose<perm=[0,2,3,1]>(a)
        c = LayerNormalization<axis=-1>(b, g0, h0)
        [up] d = MatMul(c, w0)
        e = Tanh(d)
        [down] g = MatMul(e, w1)
        h = Mul(g, scale)
        i = Transpose<perm=[0,3,1,2]>(h)
        last = Add(i, s)
        """ + HEAD,
        {"k0": (6, 3, 2, 2), "b0": (6,), "k1": (6, 1, 3, 3), "b1": (6,), "g0": (6,), "h0": (6,),
         "w0": (6, 12), "w1": (12, 6), "scale": (6,), "wh": (6, 5), "bh": (5,)},
        {}, {"up": 6},
    ),
}  # fmt: skip


def net(name):
    text, weights, constants, expected = NETS[name]
    tokens = name.startswith(("vit", "llama"))
    shape = TOKENS if tokens else IMAGE
    inside = "n," + ",".join(map(str, shape[1:]))
    result = "n,5,4" if tokens else "n,5"
    model = parsed(f"net (float[{inside}] x) => (float[{result}] y) {{ {text} }}", weights, **constants)
    for layer in find_layers(model.graph):  # so that values stay of one size
        matrix, bias = layer.read()
        layer.write(matrix / np.sqrt(layer.d_in), bias)
    return load(model).ir, np.random.default_rng(5).standard_normal(shape).astype(np.float32), expected


def cut_for(model, x, **given):
    options = resolve(units=0.5, scope="layer", score="norm", replace="zero", provider="cpu", **given)
    data = open_data(x, model.graph.inputs, batch_size=len(x))
    return decide(model, find_layers(model.graph), options, Evidence(data, None, Gathering(), Silent()))


@pytest.mark.parametrize("name", NETS)
def test_removal_is_silencing(name):
    model, x, expected = net(name)
    cut = cut_for(model, x)
    silenced, small = model.clone(), model.clone()
    replace_units(silenced, *cut.masks())
    remove_cut(small, cut)
    after = {layer.name: layer for layer in find_layers(small.graph)}
    for layer, rows in expected.items():
        left = after[layer].groups * after[layer].d_out
        before = {found.name: found.groups * found.d_out for found in find_layers(model.graph)}[layer]
        assert left == rows if rows is not None else left < before
    want = run(silenced, {"x": x})
    for optimise in (False, True):
        assert_same(want, run(small, {"x": x}, optimise))


def test_normalised_axes_are_cut_only_if_asked_for():
    model, x, _ = net("convnext: depthwise, LayerNorm in between, layer scale")
    exact, approximate = cut_for(model, x), cut_for(model, x, approximate=True)
    assert {family.name for family in exact.families.families} == {"up"}
    assert {family.name for family in approximate.families.families} == {"stem", "up"}
    small, silenced = model.clone(), model.clone()
    remove_cut(small, approximate)
    assert {layer.name: layer.groups * layer.d_out for layer in find_layers(small.graph)} == {
        "stem": 3, "dw": 3, "up": 6, "down": 3, "head": 5
    }  # fmt: skip
    replace_units(silenced, *approximate.masks())
    KEPT_NORMS["normalise_kept"](silenced, model, approximate.families.groups, approximate.units())
    assert_same(run(silenced, {"x": x}), run(small, {"x": x}))
