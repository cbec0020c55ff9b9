"""Output: the safe writer. A file appears complete, checked and compared, or not at all.

Everything is written under temporary names in the target's folder, read back by onnx's checker and by
onnxruntime with optimisations off and on, compared with expected outputs, and only then moved into place.
Above 2 GB the weights go to `<stem>.onnx.data` beside the file.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from onnxprune.errors import ModelError, OutputError
from onnxprune.options import Packing
from onnxprune.passes.pack import pack, unpack
from onnxprune.session import Provider, Session, weight_bytes

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]
Compare = Callable[[Session], None]

TOLERANCE = 1e-3
_ROUNDING = 10  # times what the same graph differs by for one rounding of its inputs, or with fused nodes
_MOST = 0.05  # but never more than this
METADATA_KEY = "onnxprune"  # under it the pipeline records, as JSON, how a file was made
_SINGLE_FILE_LIMIT = 2**31 - 2**20  # bytes of weights; protobuf ends at 2 GiB


def save(
    model: ir.Model,
    path: str | Path,
    *,
    expected: Sequence[tuple[Arrays, Arrays]] | Compare = (),
    tolerance: float = TOLERANCE,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Write `model` to `path` and return the bytes written, external data included.

    Args:
        model: left unchanged; its annotations of intermediate values are not written.
        path: an existing file, the model's own source included, is replaced at the very end.
        expected: pairs of feeds and the outputs they must give, or a function that raises OutputError for a
            Session it does not accept; asked twice, with optimisations off and on.
        tolerance: largest absolute difference to an expected output, relative to that output's largest
            magnitude where this is above 1.
        metadata: entries added to the file's own metadata; ours is `METADATA_KEY`, a JSON text.

    Raises:
        OutputError: the folder is missing or not writable, the disk is full, or the result fails a check.
            Nothing is left behind then, and an existing file is untouched.
    """
    target = Path(path)
    _check_target(target)
    final = without_annotations(model)
    if metadata is not None:
        final.metadata_props.update(metadata)
    compare = expected if callable(expected) else _comparison(expected, tolerance)
    with _os_errors(target), _scratch_folder(target) as folder:
        written = _write(final, folder / target.name)
        _verify(folder / target.name, compare, single=len(written) == 1)
        size = sum(file.stat().st_size for file in written)
        _move_into_place(written, target)
    return size


def computes_as(truth: ir.Model, feeds: Arrays) -> Compare:
    """A check for `save`: a session gives what `truth` does, with onnxruntime's optimisations or without.

    Of quantised graphs the two differ: with them, numbers are multiplied as integers.
    """
    known = [found for optimise in (False, True) for found in _results(truth, "cpu", optimise, feeds)]

    def compare(session: Session) -> None:
        for name, got in session.run(feeds).items():
            nearest = min((each[name] for each in known), key=lambda want: _distance(got, want))
            _compare(name, got, nearest, TOLERANCE)

    return compare


def save_packed(
    model: ir.Model,
    truth: ir.Model,
    path: str | Path,
    feeds: Arrays,
    *,
    packing: Packing,
    provider: Provider = "auto",
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Pack a copy of `model` and save it if it computes what `truth` does; returns the bytes written.

    Some networks, badly pruned ones above all, amplify the rounding of float32. How much, `truth` says: by
    what it differs with and without onnxruntime's optimisations, and when the last bit of its inputs is drawn
    at random. More is allowed accordingly.

    Args:
        model: left unchanged.
        truth: a graph with the same inputs and outputs. With fp16 the packed weights are unpacked instead.
        path: as for `save`.
        feeds: one batch to compare on.
        packing: how pruned weights are stored.
        provider: where `truth` runs.
        metadata: as for `save`.

    Raises:
        OutputError: as `save` does.
    """
    packed = _packed(model, packing)
    if packing == "fp16":
        truth = packed.clone()
        unpack(truth)
    plain, shaken = _results(truth, provider, False, feeds, _shaken(feeds))
    (fused,) = _results(truth, provider, True, feeds)
    rounding = max(
        _difference(other[name], want) for other in (fused, shaken) for name, want in plain.items()
    )
    tolerance = max(TOLERANCE, min(_ROUNDING * rounding, _MOST))
    return save(packed, path, expected=[(feeds, plain)], tolerance=tolerance, metadata=metadata)


def as_written(model: ir.Model, packing: Packing, metadata: Mapping[str, str] | None = None) -> ir.Model:
    """A copy of `model` in the form that `save_packed` writes."""
    final = without_annotations(_packed(model, packing))
    final.metadata_props.update(metadata or {})
    return final


def packed_bytes(
    model: ir.Model, packing: Packing, metadata: Mapping[str, str] | None = None, name: str = "model.onnx"
) -> int:
    """The bytes that `save_packed` would write to a file of this name, external data included."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        written = _write(as_written(model, packing, metadata), Path(folder) / name)
        return sum(file.stat().st_size for file in written)


def _packed(model: ir.Model, packing: Packing) -> ir.Model:
    packed = model.clone()
    if packing != "none":
        pack(packed, packing)
    return packed


def _results(truth: ir.Model, provider: Provider, optimise: bool, *feeds: Arrays) -> list[Arrays]:
    """What `truth` says; its session, which has a copy of all weights, is gone afterwards."""
    session = Session(truth, provider, optimise=optimise, lean=True)
    return [session.run(each) for each in feeds]


def _shaken(feeds: Arrays) -> Arrays:
    """Floats a random half of which is the next larger number."""
    rng = np.random.default_rng(0)
    return {
        name: np.where(rng.random(x.shape) < 0.5, x, np.nextafter(x, np.inf, dtype=x.dtype))
        if np.issubdtype(x.dtype, np.floating)
        else x
        for name, x in feeds.items()
    }


def _check_target(target: Path) -> None:
    if target.is_dir():
        raise OutputError(f"{target}: is a folder; name a file in it")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {str(target.parent)!r} does not exist; create it first")


def without_annotations(model: ir.Model) -> ir.Model:
    """A clone that states no types and shapes but those of inputs, outputs and custom ops.

    Any reader can infer the others, they cost bytes, and after an edit a stale one is worse than none.
    """
    clone = model.clone()
    kept = {*clone.graph.inputs, *clone.graph.outputs}
    produced = [value for node in clone.graph if not node.domain for value in node.outputs]
    for value in (*clone.graph.initializers.values(), *produced):
        if value not in kept:
            value.type = value.shape = None
    return clone


@contextmanager
def _os_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{target}: not written: {reason}; free space or choose another place") from error


@contextmanager
def _scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target`, hence on the same file system, that is gone afterwards, come what may."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # an error here must not hide the one that brought us here


def _write(model: ir.Model, path: Path) -> list[Path]:
    """The files written: the model, behind its external data if that is needed."""
    if weight_bytes(model) <= _SINGLE_FILE_LIMIT:
        with path.open("wb") as stream:
            stream.write(ir.to_proto(model).SerializeToString(deterministic=True))
            stream.flush()
            os.fsync(stream.fileno())
        return [path]
    data = path.with_name(f"{path.stem}.onnx.data")
    ir.save(model, path, external_data=data.name, size_threshold_bytes=1024)
    return [data, path]


def _verify(path: Path, compare: Compare, single: bool) -> None:
    """Check the file as any reader would meet it."""
    try:
        onnx.checker.check_model(str(path), full_check=single)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
        ValueError,
    ) as error:
        raise OutputError(
            f"the result is not a valid model: {' '.join(str(error).split())}; nothing written"
        ) from error
    for optimise in (False, True):
        try:
            compare(Session(path, "cpu", optimise=optimise, lean=True))
        except ModelError as error:
            raise OutputError(f"the result does not run: {error}; nothing written") from error


def _comparison(pairs: Sequence[tuple[Arrays, Arrays]], tolerance: float) -> Compare:
    def compare(session: Session) -> None:
        for feeds, outputs in pairs:
            got = session.run(feeds, list(outputs))
            for name, want in outputs.items():
                _compare(name, got[name], want, tolerance)

    return compare


def _compare(name: str, got: Array, want: Array, tolerance: float) -> None:
    if got.shape != want.shape:
        raise OutputError(f"output {name!r} has shape {got.shape} instead of {want.shape}; nothing written")
    difference = _difference(got, want)
    if not difference <= tolerance:  # so that NaN fails
        raise OutputError(
            f"output {name!r} differs by {difference:.3g} (allowed: {tolerance:.3g}) "
            "when the file is read back; nothing written, please report it"
        )


def _distance(got: Array, want: Array) -> float:
    return _difference(got, want) if got.shape == want.shape else np.inf


def _difference(got: Array, want: Array) -> float:
    """Largest difference, relative to the largest magnitude that is wanted where this is above 1."""
    if want.size == 0:
        return 0.0
    scale = max(1.0, float(np.abs(want.astype(np.float64)).max()))
    return float(np.abs(got.astype(np.float64) - want.astype(np.float64)).max()) / scale


def _move_into_place(written: Sequence[Path], target: Path) -> None:
    """Replace the target's files: external data first, put back if the model then cannot follow."""
    *data, model = written
    replaced: list[tuple[Path, Path]] = []
    try:
        for file in data:
            place, old = target.with_name(file.name), file.with_name(f"{file.name}.old")
            if place.exists():
                os.replace(place, old)
            replaced.append((place, old))
            os.replace(file, place)
        os.replace(model, target)
    except BaseException:  # an interrupt, too, must not leave the old model with new weights
        for place, old in replaced:
            place.unlink(missing_ok=True)
            if old.exists():
                old.rename(place)
        raise
