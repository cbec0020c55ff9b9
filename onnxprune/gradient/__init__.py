"""Gradients of an ONNX graph, written as ONNX nodes into the graph itself.

`losses` says where the gradient starts, `backprop` carries it back, `rules` holds one rule for each op.
"""

from onnxprune.gradient.backprop import Gradients, backpropagate
from onnxprune.gradient.losses import Head, LossHead, Noise, attach_loss, heads_of, takes_labels

__all__ = [
    "Gradients",
    "Head",
    "LossHead",
    "Noise",
    "attach_loss",
    "backpropagate",
    "heads_of",
    "takes_labels",
]
