"""Fig. 6b of the Mean Replacement paper: how large the outputs of the units are that each score chooses.

    python -m benchmarks.reproduce.squares small_conv

For every checkpoint of the course of training and every score, the units that go in the setting of Fig. 6 (a
tenth of the second convolution) and their mean squared output, as the next layer reads it. Rows go to
`results/squares_<net>.csv`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.common import RESULTS
from benchmarks.reproduce.checkpoints import CACHE, checkpoints, sample
from benchmarks.reproduce.measure import FOLLOWED, LAYERS, PARTS
from benchmarks.reproduce.penalties import SCORES, Method, Network
from onnxprune.layers import Layer

COLUMNS = ("seed", "step", "score", "unit", "square")
_IMAGES = 1000


def squares(network: Network, reader: Layer) -> npt.NDArray[np.float64]:
    """Mean squared output of the units that `reader` reads, at the middle of its kernel, [units]."""
    diagonal = network.statistics.layers[reader.name].activations.diagonal()[0, :-1]  # less the 1 of ā
    kernel = reader.shape[2:]
    return diagonal.reshape(-1, *kernel)[(slice(None), *(size // 2 for size in kernel))]


def chosen(network: Network) -> Iterator[tuple[str, int, float]]:
    """Every score's units and their squares."""
    for score in (*SCORES, "kfac"):
        cut = network.cut(FOLLOWED, Method(score, "zero"))  # type: ignore[arg-type]
        for family, places in zip(cut.families.families, cut.gone(), strict=True):
            if len(places):
                known = squares(network, family.readers[0].layer)
                yield from ((score, unit, known[unit]) for unit in sorted(places.tolist()))


def main() -> None:
    """All checkpoints of all seeds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=("small_conv", "medium_conv"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows: list[tuple[object, ...]] = []
    for seed in args.seeds:
        files = checkpoints(args.net, seed, args.cache)
        for step in (step for step in files if PARTS["course"].at(step, max(files))):
            network = Network(files[step], sample("train", _IMAGES, seed), None, LAYERS, seed, step)
            rows += [(seed, step, score, unit, f"{square:.5g}") for score, unit, square in chosen(network)]
    with (args.results / f"squares_{args.net}.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    main()
