"""Fitting: how statistics are gathered inside so many bytes.

Resident memory at the peak of a pass over the data is predicted as

    what is resident before  +  three copies of the weights  +  the values of a run  +  the sums of its layers
    +  BLAS's own buffers

(onnxruntime reads a model from bytes, keeps a copy and packs another). Values are those of `liveness`, for as
many samples as run at once; sums are counted by `needed`. What does not fit is gathered in several passes,
each over all data and for some of the layers; fewer samples run at once before there is another pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.data import Data
from onnxprune.errors import MemoryBudgetError
from onnxprune.layers import Layer, find_layers
from onnxprune.liveness import measure
from onnxprune.memory import be_thrifty, release, resident
from onnxprune.session import weight_bytes
from onnxprune.statistics.collect import Gathering, feeds_of, few_rows
from onnxprune.statistics.feeding import NoiseSource
from onnxprune.statistics.graph import START, build, kept_positions
from onnxprune.statistics.store import Plan

_COPIES = 3  # of the weights, while onnxruntime opens a model
_SLACK = 1.25  # onnxruntime's buffers are of sizes that it rounds up, and kernels have some of their own
_SESSION = 3 << 20  # what a layer takes whatever its size: its graphs in onnxruntime
_BLAS = 6 << 20  # what its first products leave it with
_HELD = 16  # of the limit, what data may keep of images that it decoded
_SPILLED = 8  # factors are kept in files where they take more than this part of the limit


@dataclass(frozen=True)
class Need:
    """What a layer's sums take: `sums` during a pass, `kept` after it, and `more` while it is finished."""

    layer: str
    op: str
    sums: int
    more: int
    kept: int


def plan(model: ir.Model, data: Data, how: Gathering) -> Plan:
    """The plan with the fewest passes, and of those the one that runs the most samples at once.

    Raises:
        MemoryBudgetError: a layer alone does not fit; names it, and what it takes.
        StatisticsError, GradientError, ModelError: as for `collect`.
    """
    assert how.memory is not None
    needs = [_need(layer, data, how) for layer in find_layers(model.graph)]
    be_thrifty()
    release()
    values, sizes = _values(model, data, how)
    release()
    base = resident() + _BLAS + _COPIES * weight_bytes(model) + data.hold(how.memory // _HELD)
    spilled = sum(need.kept for need in needs) > how.memory / _SPILLED
    best: Plan | None = None
    for run in sizes:
        own = base + values(run)
        parts = _parts(needs, how.memory - own, spilled)
        if parts and (best is None or len(parts) < len(best.parts)):
            taken = max(_taken(part) for part in parts)
            if not spilled:
                taken += sum(need.kept for part in parts[:-1] for need in part)
            named = tuple(tuple(need.layer for need in part) for part in parts)
            best = Plan(how.memory, own + taken, run, named, spilled)
    if best is None:
        raise _too_large(needs, base + values(sizes[-1]), sizes[-1], how.memory)
    return best


def _need(layer: Layer, data: Data, how: Gathering) -> Need:
    """Sums are float64; what a batch makes, or what waits for others, is float32.

    While it is joined, turned, squared and added there are five such arrays of one layer more.
    """
    inputs = 8 * layer.groups * (layer.d_in + 1) ** 2
    outputs = 8 * layer.groups * layer.d_out**2 if how.gradients else 0
    rows = kept_positions(layer, how.positions)
    if rows is not None and few_rows(layer, data.count, how.positions):
        inputs = 4 * layer.groups * (layer.d_in + 1) * rows * data.count
    kept = inputs + outputs
    more = 5 * max(inputs, outputs) // 2 + 4 * _SESSION
    return Need(layer.name, layer.op, kept + kept // 2 + _SESSION, more, kept)


def _values(model: ir.Model, data: Data, how: Gathering) -> tuple[Callable[[int], int], list[int]]:
    """What the values of a run take for so many samples, and how many may run at once, the most first."""
    batch = min(data.batch_size, data.count)
    layers = find_layers(model.graph).layers
    graph = build(
        model,
        loss=how.loss,
        gradients=how.gradients,
        labels=how.labels,
        positions=how.positions,
        sampled={layer.name for layer in layers},  # features as they are: no gram is made here
    )
    noise = NoiseSource(graph, how.seed, how.provider)
    sizes = [batch]
    if how.divides(data) and batch > 1 and noise.axes(data) is not None:
        sizes = [min(batch, how.portion(layers, data) or batch)]
        while sizes[-1] > 1:
            sizes.append(sizes[-1] // 2)
    counts = (1, 2) if len(sizes) > 1 else (batch,)
    runs = []
    for count in counts:
        samples = next(replace(data, batch_size=count).batches())
        feeds = feeds_of(graph, samples, noise.draw(0, samples.feeds))
        runs.append({**feeds, START: np.asarray(0)})
    alive = measure(graph.model, runs)
    share = 1 if len(sizes) > 1 else 1 / batch  # of a whole batch all counts for a sample
    read = batch * sum(array.nbytes for array in samples.feeds.values()) // samples.count
    return lambda run: int(_SLACK * alive.at(run * share)) + read, sizes


def _parts(needs: Sequence[Need], room: int, spilled: bool) -> list[list[Need]]:
    """Layers in their order, as many a pass as there is room for; none where one alone has not."""
    parts: list[list[Need]] = [[]]
    held = 0  # by the passes before
    for need in needs:
        if parts[-1] and held + _taken([*parts[-1], need]) > room:
            held += 0 if spilled else sum(done.kept for done in parts[-1])
            parts.append([])
        parts[-1].append(need)
        if held + _taken(parts[-1]) > room:
            return []
    return parts


def _taken(part: Sequence[Need]) -> int:
    return sum(need.sums for need in part) + max(need.more for need in part)


def _too_large(needs: Sequence[Need], beside: int, run: int, limit: int) -> MemoryBudgetError:
    need = max(needs, key=lambda need: _taken([need]))
    least = beside + _taken([need])
    return MemoryBudgetError(
        f"layer {need.layer!r} ({need.op}) takes {_taken([need]):,} bytes for its statistics, beside "
        f"{beside:,} of the program, the model and a run of {run:,} samples: more than --memory {limit:,}; "
        f"give at least --memory {-(-least // 2**20)}MiB, or fewer --samples where rows are kept"
    )
