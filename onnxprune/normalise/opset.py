"""Opset: files older than opset 18 are raised to 18, so that every op in our tables has one form.

onnx's C++ converter does it (onnxscript's starts at 18), with the corrections of `old_meanings.py`. It sees
shapes, not weights, and knows nothing of metadata, so only its graph is taken over.
"""

from __future__ import annotations

import onnx
import onnx.version_converter
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.normalise.old_meanings import prepare, repair
from onnxprune.normalise.weightless import weightless

OPSET = 18
_IR_VERSION = 8  # the first whose specification includes opset 18


class OneDefaultDomain(ir.passes.InPlacePass):
    """Writes the default domain's long name, `ai.onnx`, as the empty one everybody uses."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename the import; onnx_ir has already renamed the nodes' domains."""
        modified = "ai.onnx" in model.graph.opset_imports
        if modified:
            model.graph.opset_imports[""] = model.graph.opset_imports.pop("ai.onnx")
        return ir.passes.PassResult(model, modified)


class RaiseOpset(ir.passes.FunctionalPass):
    """Raises a model older than opset 18 to it; `is_old` says which are."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Convert the graph and put weights, inputs, outputs and metadata back.

        Raises:
            ModelError: the converter has no rule for some op of the file, or what it made is not valid.
        """
        version = model.graph.opset_imports[""]
        prepare(model.graph, version)
        proto, weights = weightless(model)
        try:
            converted = onnx.version_converter.convert_version(proto, OPSET)
            onnx.checker.check_model(converted)
        except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"opset {version} cannot be raised to {OPSET}: {reason}; "
                f"export the model with opset {OPSET} or newer"
            ) from error
        graph = ir.from_proto(converted).graph
        _restore(graph, model.graph, weights)
        repair(graph, version)
        raised = ir.Model(
            graph,
            ir_version=max(model.ir_version, _IR_VERSION),
            producer_name=model.producer_name,
            producer_version=model.producer_version,
            domain=model.domain,
            model_version=model.model_version,
            doc_string=model.doc_string,
            metadata_props=dict(model.metadata_props),
        )
        return ir.passes.PassResult(raised, True)


def is_old(model: ir.Model) -> bool:
    """Whether `model` uses the default domain in a version before 18."""
    return model.graph.opset_imports.get("", OPSET) < OPSET


def _restore(graph: ir.Graph, before: ir.Graph, weights: list[ir.Value]) -> None:
    """Make the stand-in inputs of `graph` the initializers they were, and its interface that of `before`."""
    graph.name, graph.doc_string = before.name, before.doc_string
    graph.metadata_props.update(before.metadata_props)
    graph.opset_imports.update({domain: v for domain, v in before.opset_imports.items() if domain})
    by_name = {value.name: value for value in graph.inputs}
    for weight in weights:
        value = by_name[weight.name]
        graph.inputs.remove(value)
        value.const_value = weight.const_value
        graph.register_initializer(value)
    for value in [value for value in graph.inputs if value.is_initializer()]:
        graph.inputs.remove(value)
    for now, was in (
        *zip(graph.inputs, before.inputs, strict=True),
        *zip(graph.outputs, before.outputs, strict=True),
    ):
        now.name, now.type, now.shape, now.doc_string = was.name, was.type, was.shape, was.doc_string
        now.metadata_props.update(was.metadata_props)
