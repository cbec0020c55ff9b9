"""BatchNormalization, Mul, Add, Sub and Div into layers: folded where exact, else left; results the same."""

import numpy as np
import pytest

BN = {"gamma": (8,), "beta": (8,), "mean": (8,), "variance": np.linspace(0.1, 2, 8, dtype=np.float32)}


def conv(tail, attributes="<pads = [1, 1, 1, 1]>", output="float[n, 8, h, w] y"):
    return f"g (float[n, 4, 6, 6] x) => ({output}) {{ c = Conv {attributes} (x, k) {tail} }}"


@pytest.mark.parametrize(
    ("tail", "weights"),
    [
        ("y = BatchNormalization (c, gamma, beta, mean, variance)", BN),
        ("y = Mul (c, a)", {"a": (1, 8, 1, 1)}),
        ("y = Mul (a, c)", {"a": (8, 1, 1)}),
        ("y = Add (c, a)", {"a": (1, 8, 1, 1)}),
        ("y = Sub (c, a)", {"a": (8, 1, 1)}),
        ("y = Sub (a, c)", {"a": (8, 1, 1)}),
        ("y = Div (c, a)", {"a": np.full((8, 1, 1), 3, np.float32)}),
        ("y = Mul (c, a)", {"a": np.float32(2.5)}),
        ("m = Mul (c, a) y = Add (m, b)", {"a": (1, 8, 1, 1), "b": (1, 8, 1, 1)}),
        (
            "n = BatchNormalization (c, gamma, beta, mean, variance) m = Mul (n, a) y = Add (m, a)",
            {**BN, "a": (8, 1, 1)},
        ),
    ],
)
def test_folds_into_the_convolution_before(parse, unchanged, ops, tail, weights):
    assert ops(unchanged(parse(conv(tail), k=(8, 4, 3, 3), **weights))) == ["Conv"]


def test_grouped_conv_and_an_existing_bias(parse, unchanged, ops):
    text = """g (float[n, 4, 6, 6] x) => (float[n, 8, h, w] y) {
        c = Conv <group = 2> (x, k, b)
        y = BatchNormalization <epsilon = 0.5> (c, gamma, beta, mean, variance) }"""
    assert ops(unchanged(parse(text, k=(8, 2, 3, 3), b=(8,), **BN))) == ["Conv"]


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_conv_keeps_its_group_order(parse, unchanged, ops, group):
    text = f"""g (float[n, 4, 6, 6] x) => (float[n, 8, h, w] y) {{
        c = ConvTranspose <group = {group}, strides = [2, 2]> (x, k)
        y = BatchNormalization (c, gamma, beta, mean, variance) }}"""
    assert ops(unchanged(parse(text, k=(4, 8 // group, 3, 3), **BN))) == ["ConvTranspose"]


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_alpha_and_beta(parse, unchanged, ops, transposed):
    text = f"""g (float[n, 4] x) => (float[n, 8] y) {{
        c = Gemm <alpha = 0.5, beta = 2.0, transB = {transposed}> (x, k, b)
        y = BatchNormalization (c, gamma, beta, mean, variance) }}"""
    assert ops(unchanged(parse(text, k=(8, 4) if transposed else (4, 8), b=(1, 8), **BN))) == ["Gemm"]


@pytest.mark.parametrize(
    ("tail", "left"),
    [
        ("m = MatMul (x, k) y = Mul (m, a)", ["MatMul"]),
        ("m = MatMul (x, k) y = Add (m, a)", ["MatMul", "Add"]),
        ("m = MatMul (x, k) y = Sub (m, a)", ["MatMul", "Add"]),
        ("m = MatMul (x, k) s = Add (a, m) y = Mul (s, b)", ["MatMul", "Add"]),
        ("m = MatMul (x, k) s = Add (m, a) t = Mul (s, b) y = Sub (a, t)", ["MatMul", "Add"]),
    ],
)
def test_matmul_keeps_its_bias_as_an_add(parse, unchanged, ops, tail, left):
    text = f"g (float[n, 5, 4] x) => (float[n, 5, 8] y) {{ {tail} }}"
    assert ops(unchanged(parse(text, k=(4, 8), a=(8,), b=(8,)))) == left


@pytest.mark.parametrize(
    ("tail", "weights", "why"),
    [
        ("m = Mul (c, a) y = Add (m, c)", {"a": (1, 8, 1, 1)}, "two readers"),
        ("y = Mul (c, a)", {"a": (1, 1, 6, 6)}, "not per channel"),
        ("y = Mul (c, a)", {"a": (6,)}, "the last axis is not the channel axis"),
        ("y = Div (a, c)", {"a": (8, 1, 1)}, "not affine"),
        ("y = Mul (c, c)", {}, "not constant"),
    ],
)
def test_left_alone(parse, unchanged, ops, tail, weights, why):
    model = unchanged(parse(conv(tail), k=(8, 4, 3, 3), **weights))
    assert len(ops(model)) == tail.count("=") + 1, why


def test_a_broadcast_that_makes_channels_is_not_a_scale(parse, unchanged, ops):
    text = "g (float[n, 4, 6, 6] x) => (float[n, 8, h, w] y) { c = Conv (x, k) y = Mul (c, a) }"
    assert ops(unchanged(parse(text, k=(1, 4, 3, 3), a=(1, 8, 1, 1)))) == ["Conv", "Mul"]


def test_a_graph_output_stays_what_it_was(parse, unchanged, ops):
    text = (
        "g (float[n, 4, 6, 6] x) => (float[n,8,h,w] c, float[n,8,h,w] y) { c = Conv (x, k) y = Mul (c, a) }"
    )
    assert ops(unchanged(parse(text, k=(8, 4, 3, 3), a=(8, 1, 1)))) == ["Conv", "Mul"]


def test_a_shared_weight_is_not_scaled_and_the_note_names_it(parse, unchanged, ops):
    text = """g (float[n, 4, 6, 6] x) => (float[n, 4, h, w] y) {
        c = Conv (x, k) m = Mul (c, a) r = Relu (m) y = Conv (r, k) }"""
    model = unchanged(parse(text, k=(4, 4, 3, 3), a=(4, 1, 1)))
    assert ops(model) == ["Conv", "Mul", "Relu", "Conv"]
    assert any("k is shared" in note.reason for note in model.notes)


@pytest.mark.parametrize(
    ("middle", "attributes", "folded"),
    [
        ("z = BatchNormalization (r, gamma, beta, mean, variance)", "", True),
        ("z = BatchNormalization (r, gamma, beta, mean, variance)", "<pads = [1, 1, 1, 1]>", False),
        ("z = BatchNormalization (r, gamma, beta, mean, variance)", '<auto_pad = "SAME_UPPER">', False),
        ("z = Mul (r, gamma_column)", "<pads = [1, 1, 1, 1]>", True),
        (
            "m = BatchNormalization (r, positive, beta, mean, variance) z = MaxPool<kernel_shape=[2, 2]>(m)",
            "",
            True,
        ),
        (
            "m = BatchNormalization (r, gamma, beta, mean, variance) z = MaxPool<kernel_shape=[2, 2]>(m)",
            "",
            False,
        ),
    ],
)
def test_folds_into_the_convolution_behind_only_where_exact(
    parse, unchanged, ops, middle, attributes, folded
):
    body = f"r = Relu (x) {middle} y = Conv {attributes} (z, k)"
    text = f"g (float[n, 8, 6, 6] x) => (float[n, 6, h, w] y) {{ {body} }}"
    weights = {**BN, "gamma_column": (8, 1, 1), "positive": np.linspace(0, 2, 8, dtype=np.float32)}
    used = {name: value for name, value in weights.items() if name in middle}
    left = ops(unchanged(parse(text, k=(6, 8, 3, 3), **used)))
    assert ("BatchNormalization" not in left and "Mul" not in left) is folded


def test_folds_through_flatten_into_gemm(parse, unchanged, ops):
    text = """g (float[n, 8, 3, 2] x) => (float[n, 5] y) {
        r = Relu (x) z = BatchNormalization (r, gamma, beta, mean, variance)
        f = Flatten (z) y = Gemm (f, k) }"""
    assert ops(unchanged(parse(text, k=(48, 5), **BN))) == ["Relu", "Flatten", "Gemm"]


def test_the_other_matmul_operand_is_not_a_bias(parse, unchanged, ops):
    text = """g (float[n, 4] x) => (float[n, 5] y) {
        r = Relu (x) m = Mul (r, a) p = MatMul (m, k) y = Gemm (p, l) }"""
    assert ops(unchanged(parse(text, k=(4, 8), l=(8, 5), a=(4,)))) == ["Relu", "MatMul", "Gemm"]


def test_training_mode_stays_and_is_noted(parse, unchanged, ops):
    text = """g (float[n, 4, 6, 6] x) => (float[n, 8, h, w] y) {
        c = Conv (x, k) y, m, v = BatchNormalization <training_mode = 1> (c, gamma, beta, mean, variance) }"""
    model = unchanged(parse(text, k=(8, 4, 3, 3), **BN))
    assert ops(model) == ["Conv", "BatchNormalization"]
    assert any("training mode" in note.reason for note in model.notes)


def test_an_overflow_in_half_precision_is_left_and_noted(parse, unchanged, ops):
    text = "g (float16[n, 4, 6, 6] x) => (float16[n, 8, h, w] y) { c = Conv (x, k) y = Mul (c, a) }"
    half = {"k": np.full((8, 4, 3, 3), 300, np.float16), "a": np.full((8, 1, 1), 300, np.float16)}
    model = unchanged(parse(text, **half), x=np.zeros((1, 4, 6, 6), np.float16))
    assert ops(model) == ["Conv", "Mul"]
    assert any("overflows float16" in note.reason for note in model.notes)


def test_half_precision_folds(parse, unchanged, ops, rng):
    text = "g (float16[n, 4, 6, 6] x) => (float16[n, 8, h, w] y) { c = Conv (x, k) y = Mul (c, a) }"
    half = {
        "k": rng.standard_normal((8, 4, 3, 3)).astype(np.float16),
        "a": np.full((8, 1, 1), 0.5, np.float16),
    }
    # ½ is exact in fp16; the product of 36 terms is rounded once, at magnitudes up to 16: 2⁻⁷ an ulp
    assert ops(unchanged(parse(text, **half), tolerance=2**-6)) == ["Conv"]
