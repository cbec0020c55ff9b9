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
        self.batch = self.pick("n", 2)
        self.input = ir.Value(
            name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([self.batch, TOKENS, self.width])
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

    def some_heads(self, *shapes):
        """Heads and dimensions of each, not equally many, so that one can be told from the other."""
        self.heads = self.pick(*shapes, (2, 3), (3, 2))
        return self.heads

    def attention(self):
        heads, size = self.some_heads((1, 4))
        q, k, v = (self.linear_to(self.x, self.width, heads * size) for _ in range(3))
        self.x = self.mixed(q, k, v, heads, size)

    def fused_attention(self):
        heads, size = self.some_heads()
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

    def torch_attention(self):
        """As nn.MultiheadAttention is exported: tokens first, heads folded into the batch."""
        op, (heads, size) = self.op, self.some_heads()
        width = heads * size
        first = op.Transpose(self.x, perm=[1, 0, 2])
        qkv = op.Reshape(self.linear_to(first, self.width, 3 * width), op.ints(0, 0, 3, width))
        swapped = op.Transpose(op.Unsqueeze(qkv, op.ints(0)), perm=[3, 1, 2, 0, 4])
        parts = op.Squeeze(swapped, op.ints(-2))
        folded = op.ints(TOKENS, self.rows(heads), size)
        unfolded = op.ints(self.rows(1), heads, TOKENS, size)
        q, k, v = (
            op.Reshape(
                op.Transpose(op.Reshape(op.Gather(parts, self.scalar(i), axis=0), folded), perm=[1, 0, 2]),
                unfolded,
            )
            for i in range(3)
        )
        weights = op.Softmax(op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])), axis=-1)
        joined = op.Transpose(op.MatMul(weights, v), perm=[2, 0, 1, 3])
        flat = op.Reshape(joined, op.ints(self.rows(TOKENS), width))
        back = op.Reshape(
            op.Gemm(flat, self.weight(width, self.width)), op.ints(TOKENS, self.rows(1), self.width)
        )
        self.x = op.Transpose(back, perm=[1, 0, 2])

    def rows(self, times):
        """So many rows for each sample: a number in a network of static shapes."""
        return -1 if self.batch == "n" else self.batch * times

    def scalar(self, number):
        return self.op.constant(np.int64(number))

    def runtime_attention(self):
        """Shapes joined at run time from those of the input, as of Hugging Face's BERT."""
        op, (heads, size) = self.op, self.some_heads()
        width = heads * size

        def shape(*last):
            sizes = op.Shape(self.x)
            batch = op.Unsqueeze(op.Gather(sizes, self.scalar(0), axis=0), op.ints(0))
            return op.Concat(batch, op.Slice(sizes, op.ints(1), op.ints(2)), op.ints(*last), axis=0)

        split = shape(heads, size)
        q, v = (
            op.Transpose(op.Reshape(self.linear_to(self.x, self.width, width), split), perm=[0, 2, 1, 3])
            for _ in range(2)
        )
        own = self.pick(split, shape(heads, size))
        k = op.Transpose(op.Reshape(self.linear_to(self.x, self.width, width), own), perm=[0, 2, 3, 1])
        joined = op.Transpose(op.MatMul(op.Softmax(op.MatMul(q, k), axis=-1), v), perm=[0, 2, 1, 3])
        self.x = self.linear_to(op.Reshape(joined, shape(width)), width, self.width)

    def einsum_attention(self):
        """Products of queries, keys and values by letters, with a table of biases by head as a constant."""
        op, (heads, size) = self.op, self.some_heads()
        width, split = heads * size, op.ints(0, 0, heads, size)
        q, k, v = (op.Reshape(self.linear_to(self.x, self.width, width), split) for _ in range(3))
        logits = op.Add(op.Einsum(q, k, equation="bihd,bjhd->bhij"), self.weight(1, heads, TOKENS, TOKENS))
        joined = op.Einsum(op.Softmax(logits, axis=-1), v, equation="b h i j, b j h d -> b i h d")
        self.x = self.linear_to(op.Reshape(joined, op.ints(0, 0, width)), width, self.width)

    def grouped_queries(self):
        """Two heads of queries to each head of keys and values."""
        op, (pairs, size) = self.op, self.some_heads()
        q = op.Reshape(self.linear_to(self.x, self.width, 2 * pairs * size), op.ints(0, 0, 2 * pairs, size))
        k, v = (
            op.Transpose(
                op.Reshape(self.linear_to(self.x, self.width, pairs * size), op.ints(0, 0, pairs, size)),
                perm=[0, 2, 1, 3],
            )
            for _ in range(2)
        )
        k, v = (
            op.Reshape(
                op.Expand(op.Unsqueeze(value, op.ints(2)), op.ints(1, pairs, 2, TOKENS, size)),
                op.ints(0, 2 * pairs, TOKENS, size),
            )
            for value in (k, v)
        )
        weights = op.Softmax(
            op.MatMul(op.Transpose(q, perm=[0, 2, 1, 3]), op.Transpose(k, perm=[0, 1, 3, 2])), axis=-1
        )
        joined = op.Transpose(op.MatMul(weights, v), perm=[0, 2, 1, 3])
        self.x = self.linear_to(
            op.Reshape(joined, op.ints(0, 0, 2 * pairs * size)), 2 * pairs * size, self.width
        )

    def shuffled(self):
        """Groups of features and features of groups change places, as in a channel shuffle."""
        op, groups = self.op, 2
        apart = op.Reshape(self.x, op.ints(0, 0, groups, self.width // groups))
        self.x = op.Reshape(op.Transpose(apart, perm=[0, 1, 3, 2]), op.ints(0, 0, self.width))

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
    "linear activation scale norm mlp gated fused_gate shared attention fused_attention torch_attention "
    "runtime_attention einsum_attention grouped_queries shuffled permuted rolled padded pooled masked "
    "expanded"
).split()


def token_network(blocks, seed):
    """A random network of these blocks, and a batch for it."""
    builder = TokenBuilder(seed)
    for block in blocks:
        getattr(builder, block)()
    shape = (2, TOKENS, builder.input.shape[2])
    return builder.finish(), {"x": builder.rng.standard_normal(shape).astype(np.float32)}
