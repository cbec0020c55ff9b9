"""Gathering on a cluster: shards to workers, what they gather merged by a tree, what is lost done again.

A worker adds up all the shards it is given, so that sums travel only in the end: pairs of workers merge, then
pairs of those that are left. Nothing is copied for safety meanwhile. When a worker is lost, the shards whose
sums it held are handed out again, and a new worker takes its place.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import onnx_ir as ir

from onnxprune.cluster.connection import Cluster, current
from onnxprune.cluster.parcel import pack
from onnxprune.cluster.shards import Shards
from onnxprune.cluster.worker import Worker
from onnxprune.data import Data
from onnxprune.errors import RuntimeUnavailableError, UsageError
from onnxprune.progress import Advance, Progress, Silent
from onnxprune.statistics import Gathering, Statistics
from onnxprune.statistics import gather as gather_here
from onnxprune.statistics.collect import arranged

_PATIENCE = 180.0  # seconds until the first worker has to be there
_LOSSES = 3  # so many workers lost over one and the same thing are no accident
_STARTING, _MERGING = "starting", "merging"
_REMEDIES = {_STARTING: "install the same onnxprune, with onnxruntime, on every machine of the cluster"}
_MEMORY = "if memory has run out, use fewer --workers or a smaller --batch-size"


def gather(
    model: ir.Model, sha256: str, data: Data, how: Gathering, progress: Progress | None = None
) -> Statistics:
    """`statistics.gather`, on the cluster of the context if there is one.

    Raises:
        UsageError: the memory is limited, which is only known to be kept in one process.
        OnnxPruneError: as `statistics.gather` and `collect_on`.
    """
    there = current()
    if there is None:
        return gather_here(model, sha256, data, how, progress)
    if how.memory is not None:
        raise UsageError(
            "--memory is for one process; leave it out, and give --ray fewer --workers a machine"
        )
    return collect_on(there, model, sha256, data, how, progress)


def collect_on(
    cluster: Cluster,
    model: ir.Model,
    sha256: str,
    data: Data,
    how: Gathering | None = None,
    progress: Progress | None = None,
) -> Statistics:
    """The statistics that `statistics.collect` gathers, to the rounding of float64, by the cluster's workers.

    Data in files are read by the workers, under the same paths; arrays travel to each machine once.

    Raises:
        RuntimeUnavailableError: no worker starts, or they are lost again and again.
        StatisticsError, DataError, GradientError, ModelError: as `collect`.
    """
    with (progress or Silent()).stage("statistics", data.count) as advance:
        data, how = arranged(model, data, how or Gathering())
        run = _Run(cluster, model, data, how, advance)
        try:
            return run.statistics(sha256)
        finally:
            run.end()


@dataclass(eq=False)
class _Member:
    """An actor, how many samples the shards have whose sums it holds, and the one that it did last."""

    actor: Any
    held: dict[int, int] = field(default_factory=dict)
    last: int | None = None
    started: bool = False


class _Run:
    """The workers of one run, and what each of them does and holds."""

    def __init__(
        self, cluster: Cluster, model: ir.Model, data: Data, how: Gathering, advance: Advance
    ) -> None:
        self._cluster, self._ray, self._advance = cluster, cluster.ray, advance
        self._kind = cluster.ray.remote(**cluster.resources)(Worker)
        put = cluster.ray.put
        self._given = put(pack(model)), put(data), how, cluster.threads, os.getcwd()
        self._shards = Shards(data.batch_count, cluster.workers)
        self._members: list[_Member] = []
        self._running: dict[Any, tuple[_Member, int | None]] = {}  # which shard; None: it is starting
        self._losses = Counter[int | str]()  # by what the worker was at, since that last went well
        self._gone = 0
        for _ in range(cluster.workers):
            self._hire()

    def statistics(self, sha256: str) -> Statistics:
        """Gather, and merge in rounds, until one worker holds everything."""
        while True:
            self._gather()
            holders = [member for member in self._members if member.held]
            if len(holders) > 1:
                self._merge(holders)
                continue
            try:
                # what comes from Ray lies in memory that goes with it
                found: Statistics = deepcopy(self._cluster.get(holders[0].actor.statistics.remote(sha256)))
                return found
            except self._cluster.losses as error:
                self._lose(holders[0], _MERGING, error)

    def end(self) -> None:
        """Let all workers go, and note how many were lost."""
        if self._gone:
            self._cluster.notes.append(f"{self._words()} on the cluster; what they held was gathered again")
        for member in self._members:
            self._ray.kill(member.actor)

    def _hire(self) -> None:
        member = _Member(self._kind.remote(*self._given))
        self._members.append(member)
        self._running[member.actor.start.remote(version("onnxprune"))] = member, None

    def _gather(self) -> None:
        """Until all shards are held by somebody."""
        while self._shards or any(shard is not None for _, shard in self._running.values()):
            busy = {member for member, _ in self._running.values()}
            for member in self._members:
                shard = self._shards.take(member.last) if member not in busy else None
                if shard is not None:
                    task = member.actor.gather.remote(self._shards.numbers(shard))
                    self._running[task] = member, shard
            self._next()

    def _next(self) -> None:
        """Wait until one of the workers has done what it was at."""
        patience = None if any(member.started for member in self._members) else _PATIENCE
        done, _ = self._ray.wait(list(self._running), timeout=patience)
        if not done:
            raise RuntimeUnavailableError(
                f"no worker has started within {_PATIENCE:.0f} seconds: {self._room()}; take fewer "
                "--workers, or wait until the cluster is free"
            )
        member, shard = self._running.pop(done[0])
        try:
            samples = self._cluster.get(done[0])
        except self._cluster.losses as error:
            self._lose(member, _STARTING if shard is None else shard, error)
            return
        if shard is None:
            member.started, self._losses[_STARTING] = True, 0
        else:
            member.held[shard], member.last = samples, shard
            self._advance(samples)

    def _merge(self, holders: Sequence[_Member]) -> None:
        """One round: the second of each pair takes in what the first has, which may then go."""
        self._advance(0, _MERGING)
        pairs = list(zip(holders[::2], holders[1::2], strict=False))
        tasks = [taker.actor.take_in.remote(giver.actor.partial.remote()) for giver, taker in pairs]
        for (giver, taker), task in zip(pairs, tasks, strict=True):
            try:
                self._cluster.get(task)
            except self._cluster.losses as error:
                # whether the sums have arrived nobody knows, unless it is certain that they were not sent
                sent = self._alive(giver)
                for member in [taker] if sent else [giver, *([] if self._alive(taker) else [taker])]:
                    self._lose(member, _MERGING, error)
                continue
            taker.held |= giver.held
            self._losses[_MERGING] = 0
            self._members.remove(giver)
            self._ray.kill(giver.actor)

    def _lose(self, member: _Member, doing: int | str, error: Exception) -> None:
        """Hand out again what a worker had that is gone, and put another in its place.

        Raises:
            RuntimeUnavailableError: too many were lost over the same thing.
        """
        self._ray.kill(member.actor)  # it may only be out of reach
        self._members.remove(member)
        self._shards.put_back([*member.held, *([doing] if isinstance(doing, int) else [])])
        self._losses[doing] += 1
        if self._losses[doing] == _LOSSES:
            numbers = self._shards.numbers(doing) if isinstance(doing, int) else None
            at = f"at batches {numbers[0]} to {numbers[-1]}" if numbers else doing
            reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
            raise RuntimeUnavailableError(
                f"{_LOSSES} workers were lost {at} ({reason}); {_REMEDIES.get(str(doing), _MEMORY)}"
            ) from error
        self._gone += 1
        self._advance(-sum(member.held.values()), self._words())
        self._hire()

    def _alive(self, member: _Member) -> bool:
        try:
            self._cluster.get(member.actor.start.remote(version("onnxprune")))
        except self._cluster.losses:
            return False
        return True

    def _words(self) -> str:
        return f"{self._gone} worker{'s' * (self._gone > 1)} lost"

    def _room(self) -> str:
        free, there = self._ray.available_resources(), self._ray.cluster_resources()
        return f"{free.get('CPU', 0):g} of the cluster's {there.get('CPU', 0):g} processors are free"
