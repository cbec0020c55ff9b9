"""Opening: every check between a source and a model, made once, before any work starts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np
import onnx_ir as ir

from onnxprune.data import sources
from onnxprune.data.batches import BATCH_SIZE, Data, Part
from onnxprune.data.inputs import Array, Input, fixed_batch, listed, wanted
from onnxprune.data.lazy import Joined, Lazy
from onnxprune.data.noise import SAMPLES, noise
from onnxprune.data.rows import Samples
from onnxprune.data.sources import Source
from onnxprune.errors import DataError, UsageError
from onnxprune.progress import Progress, Silent

_LABELS = ("labels", "label", "y", "targets")
_ALIASES = ("x", "data", "images")
_LOOKED_AT = 1 << 10  # samples between two steps of the progress
#: What inputs that data sets leave out are for most models, by a part of their name.
_USUAL = {
    "mask": "1 where there is a token and 0 where there is padding",
    "type_ids": "0 everywhere for one text",
    "position": "0, 1, 2, … along the sequence",
}


def open_data(
    source: Source | None,
    inputs: Iterable[ir.Value],
    *,
    samples: int | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Data:
    """Open `source` for a model with these graph inputs; None is `noise`.

    A source is a `.npz` (arrays named as the inputs; for a model with one input also `x`, `data`, `images` or
    the only array; labels under `labels`, `label`, `y` or `targets`), a `.npy`, a folder of such files, a
    `.csv` that names a file a sample, `Images`, an array, a mapping like the `.npz`, a sequence of such
    mappings, whose samples may differ in symbolic sizes, or what gives them one by one: an iterator, a
    `CalibrationDataReader`, a function that returns one. `samples` are drawn by `seed`, without replacement
    and in their order; of what comes one by one, the first are taken. Dtypes are cast where every value
    survives.

    Raises:
        DataError: the source does not fit the model; says what was found, what is wanted, and the remedy.
        ModelError: an input that is not a numeric tensor.
        UsageError: `samples` or `batch_size` below 1, a negative `seed`, images without a preprocessing.
        RuntimeUnavailableError: images, and no Pillow.
    """
    for option, value, least in (("samples", samples, 1), ("batch-size", batch_size, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UsageError(f"--{option} {value}: must be {least} or more")
    inputs, progress = list(inputs), progress or Silent()
    if source is None:
        return noise(inputs, SAMPLES if samples is None else samples, seed=seed, batch_size=batch_size)
    wants = wanted(inputs)
    found = sources.read(source, wants)
    where, notes = found.where, list(found.notes)
    parts = _gathered(found, wants, samples if found.streamed else None, notes, progress)
    total = _count(parts)
    if total == 0:
        raise DataError(f"{where}: no samples; the model wants {listed(wants)}")
    parts = _drawn(_merged(parts, wants), samples, seed)
    _check_values(parts, wants, where, progress)
    fixed = fixed_batch(wants)
    if fixed:
        parts = _whole_batches(parts, fixed, where, notes)
    description = _described(found, parts, total, samples, seed)
    remarks = tuple(dict.fromkeys(notes))
    return Data(tuple(wants), fixed or batch_size, description, tuple(parts), remarks, classes=found.classes)


def _described(
    found: sources.Found, parts: Sequence[Part], total: int, samples: int | None, seed: int
) -> str:
    first = "the first " if found.streamed and samples == total else ""
    drawn = f" of {total:,} (drawn by seed {seed})" if samples and samples < total else ""
    labelled = f", labelled{found.labelled}" if all(part.labels is not None for part in parts) else ""
    prepared = f", {found.prepared}" if found.prepared else ""
    return f"{found.where}: {first}{_count(parts):,}{drawn} samples{labelled}{prepared}"


def _gathered(
    found: sources.Found, wants: Sequence[Input], first: int | None, notes: list[str], progress: Progress
) -> list[Part]:
    """A part for each mapping; with `first`, no more than so many samples, and no mapping read after them."""
    parts: list[Part] = []
    count = 0
    with progress.stage("reading data", first) as advance:
        for place, mapping in found.mappings:
            part = _part(mapping, wants, place, found.where, notes)
            part = part.only(part.rows[: None if first is None else first - count])
            parts.append(part)
            count += len(part.rows)
            advance(len(part.rows))
            if count == first:
                break
    return parts


def _check_values(parts: Sequence[Part], wants: Sequence[Input], where: str, progress: Progress) -> None:
    with progress.stage("checking data", _count(parts) * len(wants)) as advance:
        for part in parts:
            for want in wants:
                step = _LOOKED_AT if want.batch_axis is not None else len(part.rows)
                for start in range(0, len(part.rows), step):
                    rows = part.rows[start : start + step]
                    want.check_values(part.arrays[want.name], where, rows)
                    advance(len(rows))


def _part(mapping: Samples, wants: Sequence[Input], place: str, where: str, notes: list[str]) -> Part:
    keys = _keys(list(mapping), wants, place)
    arrays = {want.name: _array(mapping[key], want) for want, key in zip(wants, keys, strict=True)}
    for want in wants:
        want.check_shape(arrays[want.name].shape, place)
    counts = {want.name: want.count(arrays[want.name]) for want in wants if want.batch_axis is not None}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        raise DataError(f"{place}: the inputs differ in their number of samples ({found}); make them equal")
    count = next(iter(counts.values()), 1)
    candidates = {key: _whole(mapping[key]) for key in _LABELS if key in mapping and key not in keys}
    # A file may hold the names of the classes beside the labels: only one entry a sample is a label.
    fitting = [key for key, labels in candidates.items() if labels.shape[:1] == (count,)]
    if candidates and not fitting:
        found = ", ".join(f"'{key}' {list(labels.shape)}" for key, labels in candidates.items())
        raise DataError(f"{place}: {count} samples but labels {found}; give one label a sample, or none")
    unused = [key for key in mapping if key not in keys and key not in fitting[:1]]
    if unused:
        notes.append(f"{where}: arrays not used: {', '.join(unused)}")
    return Part(arrays, candidates[fitting[0]] if fitting else None, np.arange(count))


def _array(given: Array | Lazy, want: Input) -> Array | Lazy:
    """As it is where samples of it can be read; all of it where it is fed unchanged."""
    return given if isinstance(given, Lazy) and want.batch_axis is not None else _whole(given)


def _whole(given: Array | Lazy) -> Array:
    return given[...] if isinstance(given, Lazy) else np.asanyarray(given)


def _keys(keys: Sequence[str], wants: Sequence[Input], where: str) -> list[str]:
    """The key of each input, in the order of `wants`."""
    if all(want.name in keys for want in wants):
        return [want.name for want in wants]
    if len(wants) == 1:
        unlabelled = [key for key in keys if key not in _LABELS]
        known = [key for key in _ALIASES if key in keys] or (unlabelled if len(unlabelled) == 1 else [])
        if known:
            return known[:1]
    missing = [want for want in wants if want.name not in keys]
    found = ", ".join(f"'{key}'" for key in keys) or "nothing"
    remedy = _name_remedy(keys, missing, wants)
    raise DataError(f"{where}: holds {found}, the model wants {listed(missing)}; {remedy}")


def _name_remedy(keys: Sequence[str], missing: Sequence[Input], wants: Sequence[Input]) -> str:
    spare = [key for key in keys if key not in {*_LABELS, *(want.name for want in wants)}]
    for want in missing:
        near = get_close_matches(want.name, spare, 1)
        if near:
            return f"rename '{near[0]}' if it is '{want.name}'"
    if spare:
        return "rename the arrays"
    usual = next(
        ((want, said) for want in missing for part, said in _USUAL.items() if part in want.name), None
    )
    if usual is not None:
        return f"every input must be given: '{usual[0].name}' usually is {usual[1]}"
    return "every input must be given, with one entry a sample"


def _merged(parts: Sequence[Part], wants: Sequence[Input]) -> list[Part]:
    """Join neighbours whose samples have one shape, so that batches need not end with every feed."""
    groups: list[list[Part]] = []
    for part in parts:
        if groups and _alike(groups[-1][0], part, wants):
            groups[-1].append(part)
        else:
            groups.append([part])
    return [group[0] if len(group) == 1 else _joined(group, wants) for group in groups]


def _alike(one: Part, other: Part, wants: Sequence[Input]) -> bool:
    if (one.labels is None) != (other.labels is None):
        return False
    for want in wants:
        a, b, axis = one.arrays[want.name], other.arrays[want.name], want.batch_axis
        same = np.array_equal(_whole(a), _whole(b)) if axis is None else _sample(a, axis) == _sample(b, axis)
        if not same or a.dtype != b.dtype:
            return False
    return True


def _sample(array: Array | Lazy, axis: int) -> tuple[int, ...]:
    return array.shape[:axis] + array.shape[axis + 1 :]


def _joined(group: Sequence[Part], wants: Sequence[Input]) -> Part:
    def join(want: Input) -> Array | Lazy:
        arrays = [part.arrays[want.name] for part in group]
        return arrays[0] if want.batch_axis is None else Joined(arrays, want.batch_axis)

    labels = [part.labels for part in group if part.labels is not None]
    rows = np.arange(_count(group))
    return Part({want.name: join(want) for want in wants}, np.concatenate(labels) if labels else None, rows)


def _drawn(parts: Sequence[Part], samples: int | None, seed: int) -> list[Part]:
    """`samples` rows out of all parts together, in their order; all of them where that is not fewer."""
    ends = np.cumsum([len(part.rows) for part in parts])
    if samples is None or samples >= ends[-1]:
        return list(parts)
    chosen = np.sort(np.random.default_rng(seed).permutation(ends[-1])[:samples])
    split = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    starts = [0, *ends[:-1]]
    shares = zip(parts, split, starts, strict=True)
    return [part.only(rows - start) for part, rows, start in shares if len(rows)]


def _whole_batches(parts: Sequence[Part], size: int, where: str, notes: list[str]) -> list[Part]:
    whole = [part.only(part.rows[: len(part.rows) // size * size]) for part in parts]
    lost = _count(parts) - _count(whole)
    demand = f"the model takes batches of exactly {size}"
    if _count(whole) == 0:
        raise DataError(f"{where}: {lost} samples, but {demand}; give more samples")
    if lost:
        notes.append(f"{where}: {demand}: {lost} samples left out at the end")
    return [part for part in whole if len(part.rows)]


def _count(parts: Sequence[Part]) -> int:
    return sum(len(part.rows) for part in parts)
