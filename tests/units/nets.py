"""Small networks: from ONNX's text form with random weights, and at random from a list of blocks."""

import numpy as np
import onnx
import onnx_ir as ir

from onnxprune.emit import Emitter
from onnxprune.session import Session


def inferred(model):
    """The model with shapes, strictly, so that a wrong test graph is an error."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return ir.from_proto(
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    )


def parsed(text, weights=None, seed=0, **arrays):
    """`text` as a model of opset 18; `weights` (name → shape) are drawn, `arrays` are given."""
    rng = np.random.default_rng(seed)
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (weights or {}).items()}
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> {text}')
    for name, array in {**drawn, **arrays}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"{node.op_type.lower()}_{number}"
    return inferred(proto)


def array(model, name):
    return model.graph.initializers[name].const_value.numpy()


def put(model, name, values):
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(np.ascontiguousarray(values), name=name)


def run(model, feeds, optimise=False):
    return Session(model, "cpu", optimise=optimise, threads=1).run(feeds)


def assert_same(before, after, tolerance=1e-4):
    """Equal shapes; equal numbers to float32 rounding of sums of at most a few thousand terms."""
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].shape == after[name].shape
        scale = np.abs(before[name]).max(initial=1e-3)
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=tolerance * scale)


class Builder:
    """A convolutional network that grows block by block; `x` is [n, channels, size, size]."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="net")
        self.op = Emitter(self.graph, "net")
        self.channels, self.size = int(self.rng.integers(2, 5)), 6
        self.input = ir.Value(
            name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", self.channels, 6, 6])
        )
        self.graph.inputs.append(self.input)
        self.x = self.input
        self.seen = []  # earlier values of the same shape, for residual sums

    def weight(self, *shape):
        fan = max(1, int(np.prod(shape[1:])))
        return self.op.constant((self.rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32))

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def keep(self, value, channels=None, size=None):
        new = (channels or self.channels, size or self.size)
        if new != (self.channels, self.size):
            self.seen = []
        self.x, (self.channels, self.size) = value, new
        self.seen.append(value)

    def conv(self):
        outputs, kernel = self.pick(3, 4, 6), self.pick(1, 3)
        pads = [1] * 4 if kernel == 3 else None
        bias = self.pick(None, self.weight(outputs))
        self.keep(
            self.op.Conv(self.x, self.weight(outputs, self.channels, kernel, kernel), bias, pads=pads),
            outputs,
        )

    def valid_conv(self):
        if self.size > 3:
            weight = self.weight(4, self.channels, 3, 3)
            self.keep(self.op.Conv(self.x, weight, self.pick(None, self.weight(4))), 4, self.size - 2)

    def grouped(self):
        if self.channels % 2 == 0:
            weight = self.weight(4, self.channels // 2, 1, 1)
            self.keep(self.op.Conv(self.x, weight, self.weight(4), group=2), 4)

    def depthwise(self):
        outputs = self.channels * self.pick(1, 2)
        weight, bias = self.weight(outputs, 1, 3, 3), self.weight(outputs)
        self.keep(self.op.Conv(self.x, weight, bias, group=self.channels, pads=[1] * 4), outputs)

    def transposed(self):
        if self.size <= 6:
            weight = self.weight(self.channels, 3, 2, 2)
            self.keep(self.op.ConvTranspose(self.x, weight, self.weight(3), strides=[2, 2]), 3, self.size * 2)

    def activation(self):
        slope = self.weight(self.channels, 1, 1)
        kinds = {
            "relu": lambda: self.op.Relu(self.x),
            "sigmoid": lambda: self.op.Sigmoid(self.x),
            "prelu": lambda: self.op.PRelu(self.x, slope),
            "clip": lambda: self.op.Clip(
                self.x, self.op.constant(np.float32(-1)), self.op.constant(np.float32(1))
            ),
            "leaky": lambda: self.op.LeakyRelu(self.x, alpha=0.3),
        }
        self.keep(kinds[self.pick(*kinds)]())

    def norm(self):
        parameters = [self.weight(self.channels) for _ in range(3)]
        variance = self.op.constant(self.rng.uniform(0.5, 2, self.channels).astype(np.float32))
        self.keep(self.op.BatchNormalization(self.x, *parameters, variance))

    def scale(self):
        factor = self.weight(*self.pick((1, self.channels, 1, 1), (self.channels, 1, 1), (1,)))
        self.keep(self.pick(self.op.Mul, self.op.Add, self.op.Sub)(self.x, factor))

    def residual(self):
        if self.seen:
            self.keep(self.op.Add(self.x, self.pick(*self.seen)))

    def gate(self):
        inner = self.op.Relu(
            self.op.Conv(self.op.GlobalAveragePool(self.x), self.weight(3, self.channels, 1, 1))
        )
        gate = self.op.Sigmoid(self.op.Conv(inner, self.weight(self.channels, 3, 1, 1)))
        self.keep(self.op.Mul(self.x, gate))

    def concat(self):
        branch = self.op.Conv(self.x, self.weight(3, self.channels, 1, 1), self.weight(3))
        self.keep(self.op.Concat(self.x, self.op.Relu(branch), axis=1), self.channels + 3)

    def split(self):
        if self.channels > 2:
            sizes = (1, self.channels - 1)
            a, b = self.op.Split(self.x, self.op.ints(*sizes), axis=1, outputs=2)
            other = self.op.Conv(a, self.weight(2, 1, 1, 1), self.weight(2))
            self.keep(self.op.Concat(b, other, axis=1), self.channels + 1)

    def slice(self):
        if self.channels > 2:
            cut = self.op.Slice(self.x, self.op.ints(1), self.op.ints(self.channels), self.op.ints(1))
            self.keep(cut, self.channels - 1)

    def pad(self):
        amounts = self.op.ints(0, 1, 0, 0, 0, 2, 0, 0)
        self.keep(
            self.op.Pad(self.x, amounts, self.op.constant(np.float32(self.pick(0, 0.5)))), self.channels + 3
        )

    def shuffle(self):
        order = self.rng.permutation(self.channels)[: max(2, self.channels - 1)]
        self.keep(self.op.Gather(self.x, self.op.ints(*order.tolist()), axis=1), len(order))

    def regroup(self):
        """A channel shuffle of two groups."""
        if self.channels % 2 == 0:
            apart = self.op.Reshape(self.x, self.op.ints(0, 2, self.channels // 2, self.size, self.size))
            turned = self.op.Transpose(apart, perm=[0, 2, 1, 3, 4])
            self.keep(self.op.Reshape(turned, self.op.ints(0, self.channels, self.size, self.size)))

    def pool(self):
        if self.size % 2 == 0 and self.size > 2:
            kind = self.pick("max", "average", "counted")
            shared = {"kernel_shape": [2, 2], "strides": [2, 2]}
            if kind == "counted":
                shared.update(pads=[1] * 4, count_include_pad=1)
            pooled = (self.op.MaxPool if kind == "max" else self.op.AveragePool)(self.x, **shared)
            self.keep(pooled, size=self.size // 2 + (kind == "counted"))

    def resize(self):
        if self.size <= 6:
            if self.pick(True, False):
                scales = self.op.constant(np.array([1, 1, 2, 2], np.float32))
                self.keep(self.op.Resize(self.x, None, scales, mode="nearest"), size=self.size * 2)
            else:
                sizes = self.op.ints(self.channels, self.size, self.size)
                self.keep(self.op.Resize(self.x, None, None, sizes, mode="linear", axes=[1, 2, 3]))

    def space(self):
        if self.size % 2 == 0 and self.size > 2:
            deep = self.op.SpaceToDepth(self.x, blocksize=2)
            weight = self.weight(8, self.channels * 4, 1, 1)
            mixed = self.op.Conv(deep, weight, self.weight(8))
            mode = self.pick("DCR", "CRD")
            self.keep(self.op.DepthToSpace(mixed, blocksize=2, mode=mode), 2)

    def last(self):
        """Channels behind space and back, with a stage of tokens [n, positions, channels]."""
        flat = self.op.Reshape(self.x, self.op.ints(0, self.channels, self.size**2))
        tokens = self.op.Transpose(flat, perm=[0, 2, 1])
        hidden = self.op.Relu(self.op.MatMul(tokens, self.weight(self.channels, 5)))
        mixed = self.op.Add(self.op.MatMul(hidden, self.weight(5, self.channels)), self.weight(self.channels))
        back = self.op.Transpose(self.op.Add(mixed, tokens), perm=[0, 2, 1])
        self.keep(self.op.Reshape(back, self.op.ints(-1, self.channels, self.size, self.size)))

    def finish(self):
        end = self.pick("flatten", "pool", "mean", "reshape")
        if end in ("flatten", "reshape"):
            width = self.channels * self.size**2
            x = (
                self.op.Flatten(self.x)
                if end == "flatten"
                else self.op.Reshape(self.x, self.op.ints(0, width))
            )
        elif end == "mean":
            width, x = self.channels, self.op.ReduceMean(self.x, self.op.ints(2, 3), keepdims=0)
        else:
            width = self.channels
            x = self.op.Squeeze(self.op.GlobalMaxPool(self.x), self.op.ints(2, 3))
        hidden = self.op.Relu(
            self.op.Gemm(x, self.weight(6, width), self.pick(None, self.weight(6)), transB=1)
        )
        logits = self.op.Gemm(hidden, self.weight(6, 3), self.weight(3), alpha=0.5, beta=2.0)
        logits.name = "y"
        logits.type = ir.TensorType(ir.DataType.FLOAT)
        self.graph.outputs.append(logits)
        return inferred(ir.Model(self.graph, ir_version=10))

    def feeds(self):
        shape = (2, *[dim for dim in self.input.shape if isinstance(dim, int)])
        return {"x": self.rng.standard_normal(shape).astype(np.float32)}


BLOCKS = (
    "conv valid_conv grouped depthwise transposed activation norm scale residual gate concat split slice pad "
    "shuffle regroup pool resize space last"
).split()


def network(blocks, seed):
    """A random network of these blocks, and a batch for it."""
    builder = Builder(seed)
    builder.conv()
    for block in blocks:
        getattr(builder, block)()
    return builder.finish(), builder.feeds()
