"""Networks whose batches have fewer rows than their layers are wide."""

NETS = {
    "dense": (
        """net (float[n,40] x) => (float[n,3] y) {
            h = Gemm<transB=1>(x, v)  r = Relu(h)  y = MatMul(r, w)
        }""",
        {"v": (30, 40), "w": (30, 3)},
        (40,),
    ),
    "convolutions": (
        """net (float[n,6,4,4] x) => (float[n,3] y) {
            h = Conv<pads=[1,1,1,1]>(x, v)  r = Relu(h)  s = Conv<strides=[2,2], group=2>(r, u)
            f = Flatten(s)  y = MatMul(f, w)
        }""",
        {"v": (8, 6, 3, 3), "u": (4, 4, 2, 2), "w": (16, 3)},
        (6, 4, 4),
    ),
    "one weight twice": (
        """net (float[n,2,12] x) => (float[n,2,3] y) {
            h = MatMul(x, v)  a = MatMul(h, v)  b = Add(h, a)  y = MatMul(b, w)
        }""",
        {"v": (12, 12), "w": (12, 3)},
        (2, 12),
    ),
}
