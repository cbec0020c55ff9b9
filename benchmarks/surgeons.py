"""Measure how often the paper's surgeon is worse than none: what is no theorem, as a table.

    python benchmarks/surgeons.py > benchmarks/results/surgeons.md

Quadratic loss ½ tr(G Δ A Δᵀ), damped, relative to that of cutting alone (no surgeon); random layers of 8 × 16
weights with biases, the least by MLPrune saliency cut, 200 layers a row. Correlation: inputs and gradients
are unit normals mixed by I + c · N(0, 1) matrices. Joint is the minimum by theorem; the paper's
update is exact for one weight only.
"""

from __future__ import annotations

import numpy as np

from onnxprune.passes.surgeon import joint_surgeon, paper_surgeon, quadratic_product
from onnxprune.rounds import largest
from onnxprune.saliency import saliency
from onnxprune.statistics import Gram, LayerStatistics, damping_pair

DAMPING = 1e-4
LAYERS, D_OUT, D_IN, ROWS = 200, 8, 16, 200


def random_layer(rng: np.random.Generator, correlation: float) -> tuple[np.ndarray, LayerStatistics]:
    """Weights [1, d_out, d_in + 1] and their statistics."""
    a = rng.standard_normal((ROWS, D_IN)) @ (np.eye(D_IN) + correlation * rng.standard_normal((D_IN, D_IN)))
    a = np.concatenate([a + 0.5, np.ones((ROWS, 1))], axis=1)[None]
    g = rng.standard_normal((ROWS, D_OUT)) @ (
        np.eye(D_OUT) + correlation * rng.standard_normal((D_OUT, D_OUT))
    )
    factors = [Gram(rows.transpose(0, 2, 1) @ rows, float(ROWS)) for rows in (a, g[None])]
    return rng.standard_normal((1, D_OUT, D_IN + 1)), LayerStatistics(*factors, float(ROWS), float(ROWS))


def loss(before: np.ndarray, after: np.ndarray, statistics: LayerStatistics) -> float:
    """The damped quadratic loss of changing `before` to `after`."""
    damping = damping_pair(statistics.activations, statistics.gradients, DAMPING)
    return 0.5 * float(np.vdot(after - before, quadratic_product(after - before, statistics, *damping)))


def ratios(correlation: float, share: float, seed: int = 0) -> np.ndarray:
    """Loss of the paper's and of the joint surgeon relative to none, [layers, 2]."""
    rng = np.random.default_rng([seed, int(1000 * correlation)])
    found = []
    for _ in range(LAYERS):
        weights, statistics = random_layer(rng, correlation)
        scores = saliency("mlprune", weights[:, :, :-1], statistics, DAMPING, rng)
        kept = np.ones(weights.shape, dtype=bool)
        count = max(1, round(share * scores.size)) if share < 1 else scores.size - 1
        kept[:, :, :-1] = largest(scores, np.ones(scores.shape, dtype=bool), count)
        none = loss(weights, np.where(kept, weights, 0.0), statistics)
        surgeons = (paper_surgeon, joint_surgeon)
        found.append(
            [
                loss(weights, surgeon(weights, kept, statistics, DAMPING), statistics) / none
                for surgeon in surgeons
            ]
        )
    return np.array(found)


def main() -> None:
    """Print the table."""
    print("# Surgeons: quadratic loss relative to cutting alone\n")
    print("Made by `benchmarks/surgeons.py`, which says how. Median over 200 random layers.\n")
    print("| correlation | kept | paper | joint | layers where paper is worse than none |")
    print("|---|---|---|---|---|")
    for correlation in (0.0, 0.3, 1.0):
        for share in (1.0, 0.5, 0.25, 0.125, 0.04):
            paper, joint = ratios(correlation, share).T
            kept = "all but one" if share == 1 else f"{share:.1%}"
            print(
                f"| {correlation} | {kept} | {np.median(paper):.3f} | {np.median(joint):.3f} "
                f"| {(paper > 1 + 1e-9).mean():.0%} |"
            )


if __name__ == "__main__":
    main()
