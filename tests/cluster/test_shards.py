"""Every batch is handed out once, in runs that workers go through in order."""

from itertools import pairwise

import pytest

from onnxprune.cluster.connection import threads
from onnxprune.cluster.shards import Shards


@pytest.mark.parametrize(("batches", "workers"), [(1, 1), (1, 4), (7, 2), (63, 4), (1000, 3), (4096, 1)])
def test_every_batch_is_in_one_shard(batches, workers):
    shards = Shards(batches, workers)
    taken = []
    while shards:
        taken.append(shards.take(None))
    assert shards.take(None) is None
    assert sorted(n for shard in taken for n in shards.numbers(shard)) == list(range(batches))
    assert len(taken) >= min(batches, 8 * workers)


def test_shards_begin_at_multiples_of_a_power_of_two():
    assert [Shards(1000, 4).numbers(shard) for shard in (0, 1, 62)] == [
        range(16),
        range(16, 32),
        range(992, 1000),
    ]


def test_workers_read_in_order_and_keep_apart():
    shards = Shards(64, 4)  # two batches each
    last, seen = dict.fromkeys(range(4)), {worker: [] for worker in range(4)}
    while shards:
        for worker in seen:
            shard = shards.take(last[worker])
            if shard is not None:
                seen[worker].append(shard)
                last[worker] = shard
    starts = {worker: taken[0] for worker, taken in seen.items()}
    assert starts[0] == 0 and len(set(starts.values())) == 4
    jumps = sum(b != a + 1 for taken in seen.values() for a, b in pairwise(taken))
    assert jumps <= 4  # of 28 steps: each worker goes through a run, and helps another one at the end


def test_what_is_put_back_is_handed_out_again():
    shards = Shards(8, 1)
    taken = [shards.take(None) for _ in range(8)]
    assert not shards
    shards.put_back(taken[2:4])
    assert {shards.take(None), shards.take(None)} == set(taken[2:4])
    assert not shards


@pytest.mark.parametrize(
    ("processors", "workers", "each"),
    [([2], 1, 2), ([2], 2, 1), ([2], 4, 1), ([8, 8], 2, 8), ([8, 4], 3, 4), ([8, 4], 2, 4), ([], 1, 1)],
)
def test_workers_share_the_processors_of_each_machine(processors, workers, each):
    assert threads(processors, workers) == each
