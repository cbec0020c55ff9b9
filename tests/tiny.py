"""Tiny networks from ONNX's text form, some with a torch twin that says what every layer sees."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from units.nets import parsed

from onnxprune.data import open_data


@dataclass
class Seen:
    """What a torch twin notes: by layer the features [groups, rows, d_in] and s as it was computed."""

    features: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, tuple[torch.Tensor, int]] = field(default_factory=dict)

    def linear(self, name, x, w, b=None):
        """W [d_out, d_in]."""
        s = F.linear(x, w, b)
        self._note(name, x.reshape(1, -1, x.shape[-1]), s, -1)
        return s

    def conv(self, name, x, w, b=None, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1):
        """`pads` as ONNX has them: top, left, bottom, right."""
        padded = F.pad(x, (pads[1], pads[3], pads[0], pads[2]))
        s = F.conv2d(padded, w, b, stride, 0, dilation, groups)
        patches = F.unfold(padded, w.shape[2:], dilation, 0, stride)  # [n, C·k, positions], channels slowest
        n, _, positions = patches.shape
        grouped = patches.reshape(n, groups, -1, positions).permute(1, 0, 3, 2)
        self._note(name, grouped.reshape(groups, n * positions, -1), s, groups)
        return s

    def _note(self, name, features, s, groups):
        s.retain_grad()
        self.features[name] = features.detach()
        self.outputs[name] = s, groups

    def gradients(self, name):
        """∂L/∂s as [groups, rows, d_out]."""
        s, groups = self.outputs[name]
        if groups == -1:
            return s.grad.reshape(1, -1, s.shape[-1])
        n, channels = s.shape[:2]
        return (
            s.grad.reshape(n, groups, channels // groups, -1)
            .permute(1, 0, 3, 2)
            .reshape(groups, -1, channels // groups)
        )


@dataclass
class Twin:
    text: str
    weights: dict[str, tuple[int, ...]]
    shape: tuple[int, ...]
    forward: Callable  # (seen, x, weights) → logits
    layers: int

    def model(self, seed=0):
        return parsed(self.text, self.weights, seed)


def _mlp(seen, x, w):
    h = torch.relu(seen.linear("one", x, w["w1"], w["b1"]))
    return seen.linear("two", h, 0.5 * w["w2"].T, w["b2"])


def _cnn(seen, x, w):
    h = torch.relu(seen.conv("strided", x, w["k1"], w["b1"], stride=(2, 1), pads=(1, 2, 0, 1)))
    h = torch.relu(seen.conv("grouped", h, w["k2"], w["b2"], dilation=(2, 1), pads=(2, 0, 2, 0), groups=2))
    h = seen.conv("depthwise", h, w["k3"], pads=(1, 1, 1, 1), groups=4)
    h = F.max_pool2d(torch.tanh(h), 2)
    h = seen.conv("pointwise", h, w["k4"], w["b4"])
    return seen.linear("head", h.mean((2, 3)), w["w5"].T, w["b5"])


def _tokens(seen, x, w):
    h = F.layer_norm(x, (6,), w["scale"], w["shift"])
    q, k = seen.linear("query", h, w["wq"].T), seen.linear("key", h, w["wk"].T)
    v = seen.linear("value", h, w["wv"].T, w["bv"])
    h = x + torch.softmax(q @ k.transpose(1, 2), -1) @ v
    h = h + seen.linear("down", torch.sigmoid(seen.linear("up", h, w["w1"].T, w["b1"])), w["w2"].T, w["b2"])
    return seen.linear("head", h.mean(1), w["wo"].T, w["bo"])


TWINS = {
    "mlp": Twin(
        """net (float[n,7] x) => (float[n,4] y) {
            [one] h = Gemm<transB=1>(x, w1, b1)
            a = Relu(h)
            [two] y = Gemm<alpha=0.5>(a, w2, b2)
        }""",
        {"w1": (6, 7), "b1": (6,), "w2": (6, 4), "b2": (4,)},
        (7,),
        _mlp,
        2,
    ),
    "cnn": Twin(
        """net (float[n,3,9,8] x) => (float[n,5] y) {
            [strided] s1 = Conv<strides=[2,1], pads=[1,2,0,1]>(x, k1, b1)
            a1 = Relu(s1)
            [grouped] s2 = Conv<group=2, dilations=[2,1], pads=[2,0,2,0]>(a1, k2, b2)
            a2 = Relu(s2)
            [depthwise] s3 = Conv<group=4, auto_pad="SAME_UPPER">(a2, k3)
            a3 = Tanh(s3)
            a4 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a3)
            [pointwise] s5 = Conv(a4, k4, b4)
            a5 = GlobalAveragePool(s5)
            flat = Flatten(a5)
            [head] y = Gemm(flat, w5, b5)
        }""",
        {
            "k1": (4, 3, 3, 3), "b1": (4,), "k2": (4, 2, 3, 2), "b2": (4,), "k3": (4, 1, 3, 3),
            "k4": (6, 4, 1, 1), "b4": (6,), "w5": (6, 5), "b5": (5,),
        },
        (3, 9, 8),
        _cnn,
        5,
    ),
    "tokens": Twin(
        """net (float[n,5,6] x) => (float[n,3] y) {
            h = LayerNormalization<axis=-1>(x, scale, shift)
            [query] q = MatMul(h, wq)
            [key] k = MatMul(h, wk)
            [value] vm = MatMul(h, wv)
            v = Add(vm, bv)
            kt = Transpose<perm=[0,2,1]>(k)
            scores = MatMul(q, kt)
            p = Softmax<axis=-1>(scores)
            o = MatMul(p, v)
            r = Add(x, o)
            [up] um = MatMul(r, w1)
            u = Add(b1, um)
            us = Sigmoid(u)
            [down] dm = MatMul(us, w2)
            d = Add(dm, b2)
            z = Add(r, d)
            m = ReduceMean<keepdims=0>(z, axes)
            [head] ym = MatMul(m, wo)
            y = Add(ym, bo)
        }""",
        {
            "scale": (6,), "shift": (6,), "wq": (6, 4), "wk": (6, 4), "wv": (6, 6), "bv": (6,),
            "w1": (6, 8), "b1": (8,), "w2": (8, 6), "b2": (6,), "wo": (6, 3), "bo": (3,),
        },
        (5, 6),
        _tokens,
        6,
    ),
}  # fmt: skip


def twin_model(name, seed=0):
    twin = TWINS[name]
    extra = {"axes": np.array([1], np.int64)} if name == "tokens" else {}
    return parsed(twin.text, twin.weights, seed, **extra)


def samples(shape, count, seed=0):
    return np.random.default_rng([seed, 99]).standard_normal((count, *shape)).astype(np.float32)


def data_for(model, arrays, batch_size=4, **given):
    return open_data(arrays, model.graph.inputs, batch_size=batch_size, **given)


def relative(got, want):
    """‖got − want‖ / ‖want‖."""
    return np.linalg.norm(np.asarray(got) - np.asarray(want)) / np.linalg.norm(want)


def differ(one, other):
    """The largest difference of any factor of two statistics, relative to the factor's largest entry."""
    assert list(one.layers) == list(other.layers) and one.samples == other.samples
    most = 0.0
    for name, known in one.layers.items():
        found = other.layers[name]
        assert type(known.activations) is type(found.activations) and known.rows == found.rows
        for mine, its in ((known.activations, found.activations), (known.gradients, found.gradients)):
            want, got = mine.mean(), its.mean()
            most = max(most, np.abs(got - want).max() / np.abs(want).max())
    return most


def reshaped_by_batches_of(size):
    """A network whose input leaves the batch open, and whose Reshapes do not."""
    text = """net (float[n,6] x) => (float[n,3] y) {
        r = Reshape(x, fixed)
        [in] h = MatMul(r, w0)
        f = Reshape(h, back)
        [out] y = Gemm(f, w1)
    }"""
    shapes = {"fixed": np.array([size, 2, 3]), "back": np.array([size, 8])}
    return parsed(text, {"w0": (3, 4), "w1": (8, 3)}, **shapes)
