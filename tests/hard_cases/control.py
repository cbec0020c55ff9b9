"""Control flow and recurrence."""

import numpy as np

from hard_cases.case import SAME, Case, floats, text

IF_BETWEEN = text(
    """net (float[n,16] x, bool flag) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = If (flag) <
            then_branch = t () => (float[n,24] p) { p = Relu(h) },
            else_branch = e () => (float[n,24] q) { q = Tanh(h) }
        >
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
)
IF_CAPTURES = text(
    """net (float[n,16] x, bool flag) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        y = If (flag) <
            then_branch = t () => (float[n,8] p) { p = Gemm(a, w2, b2) },
            else_branch = e () => (float[n,8] q) { q = Gemm(a, w3, b2) }
        >
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,), "w3": (24, 8)},
)
IF_ONLY = text(
    """net (float[n,16] x, bool flag) => (float[n,8] y) {
        y = If (flag) <
            then_branch = t () => (float[n,8] p) { p = MatMul(x, w2) },
            else_branch = e () => (float[n,8] q) { q = MatMul(x, w3) }
        >
    }""",
    {"w2": (16, 8), "w3": (16, 8)},
)
IF_SHARES = text(
    """net (float[n,16] x, bool flag) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        z = MatMul(a, w2)
        y = If (flag) <
            then_branch = t () => (float[n,8] p) { p = Identity(z) },
            else_branch = e () => (float[n,8] q) { q = MatMul(a, w2) }
        >
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8)},
)
IF_CONSTANT = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = If (yes) <
            then_branch = t () => (float[n,24] p) { p = Relu(h) },
            else_branch = e () => (float[n,24] q) { q = Tanh(h) }
        >
        y = Gemm(a, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,)},
    yes=np.array(True),
)
LOOP = text(
    """net (float[n,16] x) => (float[n,8] y) {
        h = Gemm(x, w1, b1)
        a = Relu(h)
        z = Loop (trips, yes, a) <
            body = b (int64 i, bool go, float[n,24] s) => (bool more, float[n,24] t) {
                more = Identity(go)
                m = MatMul(s, w3)
                t = Tanh(m)
            }
        >
        y = Gemm(z, w2, b2)
    }""",
    {"w1": (16, 24), "b1": (24,), "w2": (24, 8), "b2": (8,), "w3": (24, 24)},
    trips=np.array(3),
    yes=np.array(True),
)
SCAN = text(
    """net (float[n,6,16] x) => (float[n,8] y) {
        h = MatMul(x, w1)
        a = Relu(h)
        t = Transpose<perm=[1,0,2]>(a)
        init = ReduceMean<keepdims=0>(t, zero)
        last, all = Scan <num_scan_inputs=1,
            body = b (float[n,24] s, float[n,24] e) => (float[n,24] u, float[n,24] v) {
                m = MatMul(s, w3)
                u = Add(m, e)
                v = Identity(u)
            }
        > (init, t)
        y = Gemm(last, w2, b2)
    }""",
    {"w1": (16, 24), "w2": (24, 8), "b2": (8,), "w3": (24, 24)},
    zero=np.array([0]),
)


def recurrent(op, gates, directions=1, head=True, extra=""):
    hidden = 12
    head_text = "y = Gemm(f, w, b)" if head else "y = Identity(f)"
    outs = 8 if head else hidden * directions
    weights = {
        "w0": (10, 16),
        "wx": (directions, gates * hidden, 16),
        "wr": (directions, gates * hidden, hidden),
        "wb": (directions, 2 * gates * hidden),
    }
    if head:
        weights |= {"w": (hidden * directions, 8), "b": (8,)}
    else:
        del weights["w0"]
    return text(
        f"""net (float[n,7,{10 if head else 16}] x) => (float[n,{outs}] y) {{
            {"h = MatMul(x, w0)" if head else "h = Identity(x)"}
            t = Transpose<perm=[1,0,2]>(h)
            r = {op}<hidden_size={hidden}{extra}>(t, wx, wr, wb)
            l = Gather<axis=0>(r, last)
            p = Transpose<perm=[1,0,2]>(l)
            f = Flatten(p)
            {head_text}
        }}""",
        weights,
        last=np.array(-1),
    )


def flagged(rng):
    return {**floats("x", 16)(rng), "flag": np.array(True)}


NO_GRADIENT = {
    "saliency": "wanda",
    "allocation": "uniform",
}  # gradients do not pass through subgraphs and cells


def _recurrence(name, op, *given, **more):
    return Case(
        "recurrence",
        name,
        recurrent(op, *given, **more),
        floats("x", 7, 10),
        options=NO_GRADIENT,
        units=f"no unit can be removed: {op} '{op}_1' has no rule for units; 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={f"{op}_1": "recurrent weights are left alone: no gradient rule reaches inside the cell"},
    )


CASES = [
    Case(
        "control flow",
        "If between two layers",
        IF_BETWEEN,
        flagged,
        options=NO_GRADIENT,
        units="no unit can be removed: 'h' is read inside a subgraph by 'Relu'; 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={"If_1": "weights inside If are left alone"},
    ),
    Case(
        "control flow",
        "If that captures weights",
        IF_CAPTURES,
        flagged,
        options=NO_GRADIENT,
        units="no unit can be removed: 'a' is read inside a subgraph by 'Gemm'; `onnxprune inspect` shows what there is",
        reasons={"If_1": "weights inside If are left alone"},
    ),
    Case(
        "control flow",
        "all weights inside If",
        IF_ONLY,
        flagged,
        options=NO_GRADIENT,
        weights="no layer is left to prune: weights inside If are left alone (1 nodes); `onnxprune inspect` shows what there is",
        units=SAME,
    ),
    Case(
        "control flow",
        "a weight read outside and inside an If",
        IF_SHARES,
        flagged,
        options=NO_GRADIENT,
        units="no unit can be removed: 'w2' is read inside a subgraph by 'MatMul'; `onnxprune inspect` shows what there is",
        reasons={"If_1": "weights inside If are left alone", "MatMul_1": "weight w2 is also read by MatMul"},
    ),
    Case(
        "control flow",
        "If of a constant condition",
        IF_CONSTANT,
        floats("x", 16),
        options=NO_GRADIENT,
        units="no unit can be removed: 'h' is read inside a subgraph by 'Relu'; 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={"If_1": "weights inside If are left alone"},
    ),
    Case(
        "control flow",
        "Loop between two layers",
        LOOP,
        floats("x", 16),
        options=NO_GRADIENT,
        units="no unit can be removed: Loop 'Loop_1' has no rule for units; `onnxprune inspect` shows what there is",
        reasons={"Loop_1": "weights inside Loop are left alone"},
    ),
    Case(
        "control flow",
        "Scan between two layers",
        SCAN,
        floats("x", 6, 16),
        options=NO_GRADIENT,
        units="no unit can be removed: Scan 'Scan_1' has no rule for units; 'y' is an output of the model; `onnxprune inspect` shows what there is",
        reasons={"Scan_1": "weights inside Scan are left alone"},
    ),
    _recurrence("LSTM between two layers", "LSTM", 4),
    _recurrence("GRU between two layers", "GRU", 3),
    _recurrence("RNN between two layers", "RNN", 1),
    _recurrence("bidirectional LSTM", "LSTM", 4, 2, extra=', direction="bidirectional"'),
    Case(
        "recurrence",
        "nothing but an LSTM",
        recurrent("LSTM", 4, head=False),
        floats("x", 7, 16),
        options=NO_GRADIENT,
        weights="no layer is left to prune: recurrent weights are left alone: no gradient rule reaches inside the cell (1 nodes); `onnxprune inspect` shows what there is",
        units=SAME,
    ),
]
