"""Random networks on tokens [n, tokens, width]: attention, gates, and ops that move features about."""

import numpy as np
import onnx_ir as ir

from onnxprune.emit import Emitter
from units.nets import inferred

TOKENS = 4


class TokenBuilder:
    """Grows block by block; every block takes and leaves [n, 4, width], width even."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="net")
        self.op = Emitter(self.graph, "net")
        self.width = self.pick(4, 6, 8)
        self.input = ir.Value(
            name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", TOKENS, self.width])
        )
        self.graph.inputs.append(self.input)
        self.x = self.linear_to(self.input, self.width, self.width)

    def pick(self, *options):
        return options[int(self.rng.integers(len(options)))]

    def weight(self, *shape):
        return self.op.constant((self.rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32))

    def linear_to(self, value, width, outputs):
        product = self.op.MatMul(value, self.weight(width, outputs))
        return self.pick(product, self.op.Add(product, self.weight(outputs)))

    def linear(self):
        outputs = self.pick(4, 6, 8)
        self.x, self.width = self.linear_to(self.x, self.width, outputs), outputs

    def activation(self):
        op = self.op
        self.x = self.pick(op.Relu, op.Tanh, op.Sigmoid, op.Elu, op.Softplus)(self.x)

    def scale(self):
        self.x = self.op.Add(self.op.Mul(self.x, self.weight(self.width)), self.weight(1, self.width))

    def norm(self):
        self.x = self.op.LayerNormalization(self.x, self.weight(self.width), self.weight(self.width), axis=-1)

    def mlp(self):
        hidden = self.op.Relu(self.linear_to(self.x, self.width, 6))
        self.x = self.op.Add(self.x, self.linear_to(hidden, 6, self.width))

    def gated(self):
        gate = self.op.Sigmoid(self.linear_to(self.x, self.width, 6))
        both = self.op.Mul(gate, self.linear_to(self.x, self.width, 6))
        self.x = self.op.Add(self.linear_to(both, 6, self.width), self.x)

    def fused_gate(self):
        left, right = self.op.Split(self.linear_to(self.x, self.width, 12), axis=-1, num_outputs=2, outputs=2)
        both = self.op.Mul(self.op.Sigmoid(left), right)
        self.x = self.linear_to(both, 6, self.width)

    def shared(self):
        weight = self.weight(self.width, self.width)
        once = self.op.Tanh(self.op.MatMul(self.x, weight))
        self.x = self.op.MatMul(once, weight)

    def attention(self):
        heads, size = self.pick((1, 4), (2, 3), (3, 2))
        q, k, v = (self.linear_to(self.x, self.width, heads * size) for _ in range(3))
        self.x = self.mixed(q, k, v, heads, size)

    def fused_attention(self):
        heads, size = self.pick((2, 3), (3, 2))
        qkv = self.linear_to(self.x, self.width, 3 * heads * size)
        q, k, v = self.op.Split(qkv, axis=-1, num_outputs=3, outputs=3)
        self.x = self.mixed(q, k, v, heads, size)

    def mixed(self, q, k, v, heads, size):
        op = self.op
        shape = op.ints(0, TOKENS, heads, size)
        q, v = (op.Transpose(op.Reshape(value, shape), perm=[0, 2, 1, 3]) for value in (q, v))
        k = op.Transpose(op.Reshape(k, shape), perm=[0, 2, 3, 1])
        weights = op.Softmax(op.Mul(op.MatMul(q, k), op.constant(np.float32(size**-0.5))), axis=-1)
        joined = op.Transpose(op.MatMul(weights, v), perm=[0, 2, 1, 3])
        return self.linear_to(op.Reshape(joined, op.ints(0, TOKENS, heads * size)), heads * size, self.width)

    def permuted(self):
        order = self.rng.permutation(self.width).astype(np.int64)
        self.x = self.op.Gather(self.x, self.op.constant(order), axis=2)

    def rolled(self):
        """The halves of the features change places, as in a rotary embedding."""
        half, end = self.width // 2, np.iinfo(np.int64).max
        op, axis = self.op, self.op.ints(2)
        left = op.Slice(self.x, op.ints(0), op.ints(half), axis)
        right = op.Slice(self.x, op.ints(half), op.ints(end), axis)
        self.x = op.Concat(op.Neg(right), left, axis=-1)

    def padded(self):
        self.x = self.op.Pad(self.x, self.op.ints(0, 0, 1, 0, 0, 1))
        self.width += 2

    def pooled(self):
        """Less their largest over the tokens, or their mean."""
        reduce = self.pick(self.op.ReduceMax, self.op.ReduceMean)
        self.x = self.op.Sub(self.x, reduce(self.x, self.op.ints(1), keepdims=1))

    def masked(self):
        positive = self.op.Greater(self.x, self.weight(self.width))
        self.x = self.op.Where(positive, self.x, self.op.constant(np.float32(0)))

    def expanded(self):
        """Every feature twice, as grouped queries repeat their keys."""
        op = self.op
        wide = op.Expand(op.Unsqueeze(self.x, op.ints(3)), op.ints(1, 1, self.width, 2))
        self.x, self.width = op.Reshape(wide, op.ints(0, TOKENS, 2 * self.width)), 2 * self.width

    def finish(self):
        y = self.linear_to(self.op.Relu(self.linear_to(self.x, self.width, 6)), 6, 3)
        y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT)
        self.graph.outputs.append(y)
        return inferred(ir.Model(self.graph, ir_version=10))


TOKEN_BLOCKS = (
    "linear activation scale norm mlp gated fused_gate shared attention fused_attention permuted rolled "
    "padded pooled masked expanded"
).split()


def token_network(blocks, seed):
    """A random network of these blocks, and a batch for it."""
    builder = TokenBuilder(seed)
    for block in blocks:
        getattr(builder, block)()
    shape = (2, TOKENS, builder.input.shape[2])
    return builder.finish(), {"x": builder.rng.standard_normal(shape).astype(np.float32)}
