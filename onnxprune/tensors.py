"""Tensors of a file: all of them, wherever they are, and whether each has the bytes its shape asks for.

onnx's checker does not count them, and what reads a tensor later fails far from the cause.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
import onnx_ir as ir

from onnxprune.errors import ModelError


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of `proto` that holds anything, subgraphs, functions and sparse ones included."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (*attribute.sparse_tensors, attribute.sparse_tensor):
                if sparse.HasField("values"):
                    yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _of_graph(graph)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether its data lie in another file."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def require_whole(tensor: onnx.TensorProto) -> None:
    """Refuse a tensor of no known type, of a shape that cannot be, or with more or less data than it needs.

    Raises:
        ModelError: names it, its shape and both sizes.
    """
    shape = list(tensor.dims)
    all_but_none = prod(max(size, 1) for size in shape)  # numpy minds even where there is nothing
    if tensor.data_type not in _KNOWN or min(shape, default=0) < 0 or all_but_none > _MOST:
        raise ModelError(
            f"tensor {tensor.name!r} cannot have the type {tensor.data_type} and the shape {shape}; "
            "export the model again"
        )
    if is_external(tensor):
        return  # `external_file` looks at it
    if tensor.HasField("raw_data") and tensor.data_type != ir.DataType.STRING:
        what, needed, found = "bytes", _bytes(tensor), len(tensor.raw_data)
    else:
        values = getattr(tensor, onnx.helper.tensor_dtype_to_field(tensor.data_type))
        what, needed, found = "numbers", _entries(tensor), len(values)
    if needed != found:
        raise ModelError(
            f"tensor {tensor.name!r} of shape {shape} needs {needed:,} {what} and has {found:,}; "
            "export or download the model again"
        )


def external_file(tensor: onnx.TensorProto, folder: Path) -> Path:
    """The file that holds `tensor`, which must lie in `folder` and be long enough.

    Raises:
        ModelError: it does not; names the tensor and the path.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if not _is_inside(location, folder):
        raise ModelError(
            f"weight {tensor.name!r} lies in {location!r}, outside the model's folder; "
            "move the data file beside the model and save the model again"
        )
    file: Path = folder / location
    if not _is_file(file):
        raise ModelError(f"its external data file {location!r} is missing; put it into {str(folder)!r}")
    start, needed = entries.get("offset", "0"), _bytes(tensor)
    if not start.isdecimal() or entries.get("length", str(needed)) != str(needed):
        raise ModelError(
            f"weight {tensor.name!r} needs {needed:,} bytes of {location!r}, but the model says offset "
            f"{start!r} and length {entries.get('length')!r}; save the model again"
        )
    end, there = int(start) + needed, file.stat().st_size
    if end > there:
        raise ModelError(
            f"its external data file {location!r} is cut off: weight {tensor.name!r} needs {end} bytes, "
            f"there are {there}; copy or download it again"
        )
    return file


def _is_inside(location: str, folder: Path) -> bool:
    """Whether it is a path within `folder`, on any system, links followed."""
    kinds = (PurePosixPath(location), PureWindowsPath(location))
    if not location or any(path.is_absolute() or path.drive or ".." in path.parts for path in kinds):
        return False
    try:
        return (folder / location).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a null byte
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _bytes(tensor: onnx.TensorProto) -> int:
    return -(-_count(tensor) * _bits(tensor) // 8)


def _entries(tensor: onnx.TensorProto) -> int:
    """In the field of its type: complex numbers take two, small ones share one."""
    if _bits(tensor) < 8:
        return _bytes(tensor)
    return _count(tensor) * (2 if tensor.data_type in _COMPLEX else 1)


def _count(tensor: onnx.TensorProto) -> int:
    return prod(int(size) for size in tensor.dims)


def _bits(tensor: onnx.TensorProto) -> int:
    return int(8 * ir.DataType(tensor.data_type).itemsize) if tensor.data_type != ir.DataType.STRING else 8


_MOST = 2**58  # numbers of which numpy can count the bytes
_COMPLEX = (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128)
#: Those that the onnx installed can read.
_KNOWN = frozenset(
    number for number in onnx.TensorProto.DataType.values() if number in set(ir.DataType) and number
)
