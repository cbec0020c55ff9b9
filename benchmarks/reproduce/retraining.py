"""Fig. 4 of the Mean Replacement paper: the penalty that is left after some steps of fine-tuning.

    python -m benchmarks.reproduce.retraining small_conv --seeds 0 --after 10 100

A trained network loses units of every layer, then is trained on: batches of 64, the same images in the same
order for every method, SGD with momentum at a small constant learning rate. The penalty is the loss on the
1,000 images of the scores, less that of the network before pruning. Rows go to
`results/retraining_<net>.csv`. Needs the extra `torch`.
"""

from __future__ import annotations

import argparse
import csv
import time
from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from benchmarks.common import RESULTS, SHARED
from benchmarks.reproduce.checkpoints import CACHE, checkpoints, sample
from benchmarks.reproduce.measure import crossed
from benchmarks.reproduce.penalties import Method, Network, Setting
from models.cifar_jpeg import images

from onnxprune.finetune import to_module  # isort: skip

COLUMNS = ("seed", "step", "amount", "score", "replace", "after", "before", "train")
METHODS = [*crossed(("norm", "abs_rs", "abs_mrs"), "zero", "mean"), *crossed(("kfac",), "mean", "linear")]
AMOUNTS = (0.1, 0.5)

_IMAGES = 1000
_BATCH = 64
_RATE = 0.001


def retrained(
    model: ir.Model, batches: list[tuple[Tensor, Tensor]], after: list[int], network: Network
) -> list[float]:
    """The loss on the network's own sample after each of so many steps, ascending."""
    module = to_module(model).train()
    optimizer = torch.optim.SGD(module.parameters(), lr=_RATE, momentum=0.9)
    losses = []
    for step in range(max(after) + 1):
        if step in after:
            losses.append(loss_of(module, network))
        if step < max(after):
            x, y = batches[step]
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
    return losses


def loss_of(module: nn.Module, network: Network) -> float:
    """Mean cross-entropy on the images of the scores."""
    total = 0.0
    with torch.inference_mode():
        for batch in network.train.batches():
            (x,) = (torch.from_numpy(np.asarray(array)) for array in batch.feeds.values())
            y = torch.from_numpy(np.asarray(batch.labels))
            total += nn.functional.cross_entropy(module(x), y, reduction="sum").item()
    return total / network.train.count


def drawn(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """`count` batches of training images."""
    rows = np.random.default_rng([seed, count]).choice(50_000, count * _BATCH, replace=False)
    x, y = images(SHARED / "cifar10", "train", rows)
    pairs = zip(torch.from_numpy(x).split(_BATCH), torch.from_numpy(y).split(_BATCH), strict=True)
    return [(given.contiguous(), labels) for given, labels in pairs]


def rows_of(path: Path, seed: int, step: int, after: list[int]) -> list[tuple[object, ...]]:
    """All rows of one trained network; score and replacement are empty where nothing was pruned."""
    network = Network(path, sample("train", _IMAGES, seed), None, {"all": None}, seed)
    batches, (before, *_) = drawn(max(after), seed), network.before
    cases: list[tuple[str, Method | None, ir.Model]] = [("0", None, network.model.ir)]
    for amount, method in product(AMOUNTS, METHODS):
        model = network.without(network.cut(Setting("all", amount), method), method.replace)
        cases.append((f"{amount:g}", method, model))
    rows: list[tuple[object, ...]] = []
    for amount, method, model in cases:
        names = ("", "") if method is None else (method.score, method.replace)
        for steps, loss in zip(after, retrained(model, batches, after, network), strict=True):
            rows.append((seed, step, amount, *names, steps, f"{before:.6g}", f"{loss - before:.5g}"))
    return rows


def main() -> None:
    """Parse the options, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=("small_conv", "medium_conv"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--after", nargs="+", type=int, default=[10, 100, 500], help="steps of fine-tuning")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    after = sorted({0, *args.after})
    rows: list[tuple[object, ...]] = []
    for seed in args.seeds:
        start, files = time.perf_counter(), checkpoints(args.net, seed, args.cache)
        rows += rows_of(files[max(files)], seed, max(files), after)
        print(f"seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
    path = args.results / f"retraining_{args.net}.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
