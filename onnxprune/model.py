"""Model: an ONNX file read, checked and brought to normal form (`onnxprune.normalise`).

Knows files: that they are ONNX at all, whole, valid, and that their external data stays in their folder. The
graph is an `onnx_ir` model; weights in external files are memory-mapped, so that a file may be replaced by
its own result.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import onnx_ir as ir
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # ships no stubs

from onnxprune.errors import ModelError
from onnxprune.normalise import Note, normalise
from onnxprune.normalise.sparse import densify
from onnxprune.tensors import external_file, is_external, require_whole, tensors

__all__ = ["Model", "Note", "files", "load", "parameter_count", "parameters", "read"]

_FLOATS = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)
_PROTOBUF_LIMIT = 2**31 - 1  # bytes of one serialised message
_CHUNK = 2**20
_LFS_POINTER = b"version https://git-lfs"  # what a checkout without `lfs: true` has in a model's place
_UNNAMED = "the model given"
_TWICE = "single static assignment"  # torch lets a name of an output be one of a node's
_EXPORT = "export it again, or upgrade onnx"


@dataclass
class Model:
    """A model, normalised where `load` made it, and where it came from.

    `sha256` and `bytes` are of the source as it was: the file followed by its external data files in name
    order, or the serialised message where there was no file.
    """

    ir: ir.Model
    path: Path | None
    sha256: str
    opset_before: int
    bytes: int
    notes: list[Note] = field(default_factory=list)

    @property
    def graph(self) -> onnx_ir.Graph:
        """The main graph."""
        return self.ir.graph

    def copy(self) -> Model:
        """A model whose graph can be changed without changing this one; tensors are shared."""
        return Model(self.ir.clone(), self.path, self.sha256, self.opset_before, self.bytes, list(self.notes))


def load(source: str | Path | onnx.ModelProto | ir.Model) -> Model:
    """Read, check and normalise a model; a message or graph given is left as it is.

    Raises:
        ModelError: as `read`, or a form that cannot be normalised.
    """
    model = read(source)
    try:
        model.ir, model.notes = normalise(model.ir)
    except ModelError as error:
        name = str(model.path) if model.path is not None else _UNNAMED
        raise ModelError(f"{name}: {error}") from error
    return model


def read(source: str | Path | onnx.ModelProto | ir.Model) -> Model:
    """Read and check a model, which stays in the form it has, but for sparse weights, which become dense.

    Raises:
        ModelError: no such file, not ONNX, cut off, invalid, external data missing or outside its folder. One
            line that names the file and the remedy.
    """
    path: Path | None = Path(source) if isinstance(source, str | Path) else None
    name = str(path) if path is not None else _UNNAMED
    try:
        if isinstance(source, str | Path):
            proto, files = _read(Path(source))
            digest, size = _digest(files)
        else:
            proto = _copy(ir.to_proto(source) if isinstance(source, ir.Model) else source)
            content = proto.SerializeToString(deterministic=True)
            digest, size = hashlib.sha256(content).hexdigest(), len(content)
        _check(proto, path)
        opset = _opset(proto)
        densify(proto)
        model = _graph(proto, path)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    return Model(model, path, digest, opset, size)


def files(path: str | Path) -> list[Path]:
    """The files that the model at `path` consists of: its own, then those with its weights, in name order.

    The graph is parsed and no more: neither checked, nor are weights read.

    Raises:
        ModelError: no such file, not ONNX, cut off, external data missing or outside its folder.
    """
    try:
        return _read(Path(path))[1]
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error


def parameters(model: Model | ir.Model) -> dict[str, ir.TensorProtocol]:
    """All floating-point initializers by name, subgraphs included; any shape, fp16, bf16, fp32, fp64.

    Where two subgraphs use one name, later ones read `<graph name>/<name>`.
    """
    graph = model.graph
    found: dict[str, ir.TensorProtocol] = {}
    for owner in (graph, *graph.subgraphs()):
        for name, value in owner.initializers.items():
            if value.const_value is not None and value.const_value.dtype in _FLOATS:
                found[name if name not in found else f"{owner.name}/{name}"] = value.const_value
    return found


def parameter_count(model: Model | ir.Model) -> int:
    """Number of floating-point weights, zeros included."""
    return sum(tensor.size for tensor in parameters(model).values())


def _read(path: Path) -> tuple[onnx.ModelProto, list[Path]]:
    """The message in `path`, weights in other files not loaded, and the files the model consists of."""
    if path.is_dir():
        raise ModelError("is a folder; name the .onnx file in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError("no such file; check the path") from error
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}; check its permissions") from error
    if not content:
        raise ModelError("is empty; export or download it again")
    if content.startswith(_LFS_POINTER):
        raise ModelError("is a Git LFS pointer, not the model; fetch it with `git lfs pull`")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        raise ModelError("is not an ONNX file, or cut off; export or download it again") from error
    if (name := _no_text(proto)) is not None:
        raise ModelError(f"has a {name!r} that is no text in UTF-8; export or download it again")
    if not proto.HasField("graph") or not proto.opset_import:
        raise ModelError("is not an ONNX model (no graph or no opset in it); export it again")
    for tensor in tensors(proto):
        require_whole(tensor)
    folder = path.parent
    outside = {external_file(tensor, folder) for tensor in tensors(proto) if is_external(tensor)}
    return proto, [path, *sorted(outside)]


def _no_text(message: Message) -> str | None:
    """The first field of text that is none: protobuf hands it out as bytes, for others to stumble over."""
    for entry, value in message.ListFields():
        values = [value] if isinstance(value, str | bytes | Message) else value
        if entry.type == entry.TYPE_STRING and any(isinstance(text, bytes) for text in values):
            return str(entry.name)
        if entry.type == entry.TYPE_MESSAGE:
            found = next((name for part in values if (name := _no_text(part)) is not None), None)
            if found is not None:
                return found
    return None


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    if any(map(is_external, tensors(proto))):
        raise ModelError("has its weights in other files; load it from its path instead")
    for tensor in tensors(proto):
        require_whole(tensor)
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    return twin


def _digest(files: list[Path]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    return digest.hexdigest(), size


def _check(proto: onnx.ModelProto, path: Path | None) -> None:
    if not proto.graph.input and not any(node.op_type for node in proto.graph.node):
        raise ModelError("has no inputs and no nodes; export it again")
    if not proto.graph.output:
        raise ModelError("has no outputs; export it again with the outputs named")
    given = {value.name for value in proto.graph.input} - {tensor.name for tensor in proto.graph.initializer}
    if not given:
        raise ModelError(
            "has no inputs: there is nothing to calibrate on; export it again with its inputs named"
        )
    by_path = path is not None and any(map(is_external, tensors(proto)))
    try:
        onnx.checker.check_model(str(path) if by_path else proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        remedy = "export it again, with another name for it" if _TWICE in reason else _EXPORT
        raise ModelError(f"is not a valid ONNX model: {reason}; {remedy}") from error


def _opset(proto: onnx.ModelProto) -> int:
    """Version of the default domain, 0 where the model does not use it."""
    newest: int = onnx.defs.onnx_opset_version()
    opset = next((int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset > newest:
        raise ModelError(f"uses opset {opset} and the onnx installed ends at {newest}; upgrade onnx")
    return opset


def _graph(proto: onnx.ModelProto, path: Path | None) -> ir.Model:
    """`proto` as a graph whose external weights are mapped into memory now, not when the file may be gone."""
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir wraps whatever its readers raise, with all of the message
        reason = " ".join(str(_first_cause(error)).split())
        raise ModelError(f"is not a valid ONNX model: {reason}; export it again") from error
    if path is None:
        return model
    try:
        map_weights(model, path.parent)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"its external data cannot be read: {reason}; copy the data file beside the model"
        ) from error
    return model


def map_weights(model: ir.Model, folder: Path) -> None:
    """Map the weights that lie in files of `folder` into memory; the files may go then.

    Raises:
        OSError, ValueError: a file cannot be mapped, or is too short.
    """
    ir.external_data.set_base_dir(model.graph, folder)
    for owner in (model.graph, *model.graph.subgraphs()):
        for value in owner.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _mapped(value.const_value)
        for node in owner:
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.ExternalTensor):
                    node.attributes[name] = ir.AttrTensor(name, _mapped(attribute.value))


def _mapped(tensor: ir.ExternalTensor) -> ir.Tensor[Any]:
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape, name=tensor.name)


def _first_cause(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first_cause(error.__cause__)
