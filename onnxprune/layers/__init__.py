"""Layers: every Conv, ConvTranspose, Gemm and MatMul(+Add) seen as `s = W ā`.

Only `kinds` asks for the op type of a linear node. Layout convention, for all of them:

    matrix      [groups, d_out, d_in]   W; d_in counts input channels × kernel positions, channels slowest
    bias        [groups, d_out]         the last column of the paper's W, kept apart
    features    [groups, d_in, rows]    a: for a convolution the im2col patches, padding zeros included
    responses   [groups, d_out, rows]   s, or ∂L/∂s

`rows` are samples × positions (see `im2col`).

A weight used by several nodes is one layer with several uses; the uses count as further positions.
"""

from onnxprune.layers.finding import LEFT_ALONE, Layers, Skipped, find_layers
from onnxprune.layers.kinds import KINDS
from onnxprune.layers.layer import Layer, Use

__all__ = ["KINDS", "LEFT_ALONE", "Layer", "Layers", "Skipped", "Use", "find_layers"]
