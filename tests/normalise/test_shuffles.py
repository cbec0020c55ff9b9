"""Channel shuffles become a Gather where they reorder one axis and do nothing else."""

import numpy as np
import pytest

SHAPES = {"apart": np.array([0, 3, 4, 5, 5]), "joined": np.array([-1, 12, 5, 5])}


def shuffle(perm, tail="", image="float[n, 12, 5, 5]"):
    return f"""g ({image} x) => (float[a, b, c, d] y{tail and ", float[e, f, g, h, i] z"}) {{
        r = Relu (x)  s = Reshape (r, apart)  t = Transpose <perm = {perm}> (s)
        j = Reshape (t, joined)  y = Relu (j) {tail} }}"""


@pytest.mark.parametrize("image", ["float[n, 12, 5, 5]", "float[2, 12, 5, 5]"])
def test_a_shuffle_is_a_gather_of_its_channels(parse, unchanged, ops, image):
    model = unchanged(parse(shuffle([0, 2, 1, 3, 4], image=image), **SHAPES))
    assert ops(model) == ["Relu", "Gather", "Relu"]
    gather = list(model.ir.graph)[1]
    assert gather.attributes.get_int("axis") == 1
    order = np.arange(12).reshape(3, 4).T.ravel()
    np.testing.assert_array_equal(gather.inputs[1].const_value.numpy(), order)


@pytest.mark.parametrize(
    "perm",
    [
        [0, 1, 2, 4, 3],  # height and width change places: two axes are reordered together
        [0, 2, 1, 4, 3],
        [2, 1, 0, 3, 4],  # samples are mixed with channels
    ],
)
def test_what_reorders_more_than_one_axis_stays(parse, unchanged, ops, perm):
    assert ops(unchanged(parse(shuffle(perm), **SHAPES))) == [
        "Relu",
        "Reshape",
        "Transpose",
        "Reshape",
        "Relu",
    ]


def test_a_shuffle_whose_inside_is_read_stays(parse, unchanged, ops):
    model = unchanged(parse(shuffle([0, 2, 1, 3, 4], "z = Neg (t)"), **SHAPES))
    assert ops(model) == ["Relu", "Reshape", "Transpose", "Reshape", "Relu", "Neg"]


def test_nothing_reordered_is_no_shuffle(parse, unchanged, ops):
    assert "Gather" not in ops(unchanged(parse(shuffle([0, 1, 2, 3, 4]), **SHAPES)))
