"""What a model wants to be fed, from ONNX's text form: `float[batch,3,4,5] image,  int64[batch] n`."""

import onnx.parser
import onnx_ir as ir


def graph(inputs: str) -> ir.Model:
    """A model that takes `inputs` and does next to nothing."""
    first = inputs.split(",  ")[0].split()[-1]
    text = (
        f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => (int64[n] out) {{ out = Shape({first}) }}'
    )
    return ir.from_proto(onnx.parser.parse_model(text))


def inputs(text: str) -> list[ir.Value]:
    return list(graph(text).graph.inputs)
