"""Normalising: every file, whatever exporter wrote it, becomes the one form the package knows.

Default-domain opset 18 or newer, no functions, no Constant nodes, nothing left to compute that does not
depend on the input, affine nodes folded into layers, unique names, shapes inferred. What the model computes
stays the same. One pass a file; `normalise` is their order.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxprune.errors import ModelError
from onnxprune.normalise.affine import FoldAffine
from onnxprune.normalise.agreement import SizesAgree
from onnxprune.normalise.constants import LiftConstants
from onnxprune.normalise.fold import FoldConstants
from onnxprune.normalise.inputs import InitializersAreNotInputs, NegativeSizesAreUnknown
from onnxprune.normalise.names import UniqueNodeNames
from onnxprune.normalise.note import Note
from onnxprune.normalise.opset import OneDefaultDomain, RaiseOpset, is_old
from onnxprune.normalise.packed import UnpackWeights
from onnxprune.normalise.shapes import InferShapes
from onnxprune.normalise.shuffles import ShuffleIsGather
from onnxprune.normalise.survey import Survey
from onnxprune.normalise.unused import RemoveUnused
from onnxprune.normalise.views import GatherInOrderIsReshape

__all__ = ["Note", "normalise"]


def normalise(model: ir.Model) -> tuple[ir.Model, list[Note]]:
    """The normal form of `model`, which is consumed, and what there is to say about it.

    Raises:
        ModelError: functions that cannot be inlined, shapes that contradict each other, an opset
            that cannot be raised, a Constant of no kind.
    """
    notes: list[Note] = []
    step: ir.passes.PassBase
    model = _inlined(model)
    for step in (
        OneDefaultDomain(),
        InitializersAreNotInputs(notes),
        NegativeSizesAreUnknown(),
        LiftConstants(),
        InferShapes(notes, strict=True),
        SizesAgree(),
    ):
        step(model)
    if is_old(model):  # the converter writes simpler nodes where the rank is known by now
        model = RaiseOpset()(model).model
        LiftConstants()(model)
    for step in (UniqueNodeNames(), UnpackWeights(), RemoveUnused()):
        step(model)
    fold = FoldConstants(notes)
    while True:  # shapes make constants, constants make shapes
        InferShapes(notes)(model)
        if not fold(model).modified:
            break
    GatherInOrderIsReshape()(model)
    ShuffleIsGather()(model)
    FoldAffine(notes)(model)
    RemoveUnused()(model)
    InferShapes(notes)(model)
    Survey(notes)(model)
    return model, list(dict.fromkeys(notes))


def _inlined(model: ir.Model) -> ir.Model:
    if not model.functions:
        return model
    try:
        inlined = InlinePass()(model).model
        inlined.functions.clear()
        return inlined
    except (ValueError, ir.passes.PassError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the model's functions cannot be inlined: {reason}; export it without functions"
        ) from error
