"""Pruning penalties: the loss after units are removed, less the loss before, of one network at one moment.

As in the Mean Replacement paper (section 4, appendix 6.2): the same training images serve the scores, the
means and the penalty; a penalty on test images stands beside it. The order in which a score lets the units of
a layer go does not depend on how many go, so it is decided once a network; then only the counts differ. All
happens in memory; where one layer of a chain loses units, only what follows it runs again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from benchmarks.reproduce.tail import at, behind
from benchmarks.subjects import Arrays
from onnxprune import load
from onnxprune.cut import Cut, Evidence, decide, remove_cut
from onnxprune.data import Data, open_data
from onnxprune.evaluate import evaluate
from onnxprune.layers import find_layers
from onnxprune.options import Options, Replacement, Score, resolve
from onnxprune.passes.replace import give_biases, replace_units
from onnxprune.progress import Silent
from onnxprune.prune import prune
from onnxprune.shares import Limits, in_every_family, steps
from onnxprune.statistics import Gathering, Statistics, collect
from onnxprune.task import make_task

SCORES: tuple[Score, ...] = ("abs_mrs", "abs_rs", "norm", "rand", "mrs", "rs")  # the paper's

_BATCH = 50  # `evaluate` runs the first batch twice
_DRAWS = 1000  # settings of a network that have random units of their own
_SEEDS = 1000

#: Groups of layers by the names of their weights; None is every layer with units.
Groups = Mapping[str, tuple[str, ...] | None]


@dataclass(frozen=True)
class Setting:
    """The group of layers that lose units, and how many of each: a fraction below 1, else a number."""

    layers: str
    amount: float


@dataclass(frozen=True)
class Method:
    """A score, and what replaces the units that it chooses."""

    score: Score
    replace: Replacement


@dataclass(frozen=True)
class Penalty:
    """Units removed, and loss after − before in nats: on the images of the scores, on test images if any."""

    removed: int
    train: float
    test: float | None


class Network:
    """A network with its statistics; copies of it are cut and measured.

    Args:
        path: the ONNX file, a classifier.
        train: images and labels for statistics, scores and penalties.
        test: others, for penalties alone; None for none.
        groups: what settings may name.
        seed: of random units and sampled labels.
        moment: of training; random units are drawn anew at each.
    """

    def __init__(
        self, path: Path, train: Arrays, test: Arrays | None, groups: Groups, seed: int, moment: int = 0
    ) -> None:
        self.model = load(path)
        self.groups, self.seed, self.moment = groups, seed, moment
        inputs = self.model.ir.graph.inputs
        self.train = open_data(train, inputs, batch_size=_BATCH)
        self.data = [self.train]
        if test is not None:
            self.data.append(open_data(test, inputs, batch_size=_BATCH))
        self.how = Gathering(seed=seed)
        self.statistics = self._gather(self.model.ir)
        self.means = {name: known.mean() for name, known in self.statistics.layers.items()}
        self.before = _losses(self.model.ir, self.data)
        self._orders: dict[tuple[Score, Replacement, int], Cut] = {}
        self._after: dict[tuple[tuple[int, ...], Replacement], list[float]] = {}
        self._values: dict[str, list[Data]] = {}

    def penalties(
        self, settings: Iterable[Setting], methods: Iterable[Method]
    ) -> Iterator[tuple[Setting, Method, Cut, Penalty]]:
        """What every method removes in every setting, and the penalty, where any unit goes at all."""
        methods = tuple(methods)
        for draw, setting in enumerate(settings):
            for method in methods:
                cut = self.cut(setting, method, draw)
                if len(cut.units()):
                    yield setting, method, cut, self.penalty(cut, method.replace)

    def cut(self, setting: Setting, method: Method, draw: int = 0) -> Cut:
        """The units that go; `draw` tells the random choices of one network apart."""
        order = self._order(method, draw)
        families = order.families.families
        names = self.groups[setting.layers]
        hit = [
            names is None or any(touch.layer.matches(name) for touch in family.makers for name in names)
            for family in families
        ]
        sizes = np.array([family.size for family in families])
        limits = Limits(sizes, tuple(map(steps, sizes.tolist())))
        return replace(order, kept=np.where(hit, in_every_family(limits, setting.amount), sizes))

    def penalty(self, cut: Cut, replaced: Replacement) -> Penalty:
        """Remove the units from a copy and measure it; scores often agree, and then it is measured once."""
        units = tuple(sorted(cut.units().tolist()))
        if (units, replaced) not in self._after:
            self._after[units, replaced] = self._measured(cut, replaced)
        changes = [after - b for after, b in zip(self._after[units, replaced], self.before, strict=True)]
        return Penalty(len(units), changes[0], changes[1] if len(changes) > 1 else None)

    def without(self, cut: Cut, replaced: Replacement) -> ir.Model:
        """A copy of the network without the units."""
        model = self._refitted(cut) if replaced == "linear" else self._silenced(cut, replaced)
        remove_cut(model, cut)
        return model

    def _measured(self, cut: Cut, replaced: Replacement) -> list[float]:
        seen = None if replaced == "linear" else _only_seen_through(cut)
        rest = None if seen is None else behind(self._silenced(cut, replaced), seen)
        if seen is None or rest is None:
            return _losses(self.without(cut, replaced), self.data)
        if seen not in self._values:
            self._values[seen] = [at(self.model.ir, seen, data) for data in self.data]
        return _losses(rest, self._values[seen])

    def _refitted(self, cut: Cut) -> ir.Model:
        options = _options(Method("norm", "linear"), self.seed)
        task = make_task(self.model.ir, self.train, self.statistics, (), cut, options, self._gather, Silent())
        return prune(task).model

    def _silenced(self, cut: Cut, replaced: Replacement) -> ir.Model:
        model = self.model.ir.clone()
        masks, silent = cut.masks()
        if replaced == "mean":
            give_biases(model, masks)
        replace_units(model, masks, silent, self.means if replaced == "mean" else None)
        return model

    def _order(self, method: Method, draw: int) -> Cut:
        # what takes a unit's place changes the order by K-FAC alone
        replaced = method.replace if method.score == "kfac" else "zero"
        drawn = (self.moment * _SEEDS + self.seed) * _DRAWS + draw
        seed = drawn if method.score == "rand" else self.seed
        key = method.score, replaced, seed
        if key not in self._orders:
            evidence = Evidence(self.train, self.statistics, self.how, Silent())
            layers = find_layers(self.model.ir.graph)
            options = _options(Method(method.score, replaced), seed)
            self._orders[key] = decide(self.model.ir, layers, options, evidence)
        return self._orders[key]

    def _gather(self, model: ir.Model) -> Statistics:
        return collect(model, self.model.sha256, self.train, self.how)


def _losses(model: ir.Model, data: Iterable[Data]) -> list[float]:
    return [evaluate(model, each).values["loss"] for each in data]


def _only_seen_through(cut: Cut) -> str | None:
    """The value through which alone the units are read, by one node; None if they are of several layers."""
    families = [f for f, gone in zip(cut.families.families, cut.gone(), strict=True) if len(gone)]
    if len(families) != 1 or len(families[0].readers) != 1:
        return None
    uses = families[0].readers[0].layer.uses
    return uses[0].input.name if len(uses) == 1 else None


def _options(method: Method, seed: int) -> Options:
    """The recipe's; the number of units is set later."""
    return resolve("mean-replacement", units=1, score=method.score, replace=method.replace, seed=seed)
