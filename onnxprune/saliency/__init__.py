"""Scores: statistics in, one number per weight out. Scores make plans; passes apply them."""

from onnxprune.saliency.weights import NEEDS_GRADIENTS, NEEDS_STATISTICS, SALIENCIES, normalised, saliency

__all__ = ["NEEDS_GRADIENTS", "NEEDS_STATISTICS", "SALIENCIES", "normalised", "saliency"]
