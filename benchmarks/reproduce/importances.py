"""MLPrune's Figs. 1 and 2: weights before and after pruning, and importance against magnitude.

    python -m benchmarks.reproduce.importances lenet_5

The paper shows AlexNet's last convolution and first dense layer; here they are those of a trained network of
this project. Fig. 1: the dense layer's weights, dense and at a quarter. Fig. 2: both layers' weights when the
whole network is to be halved, and when it is to be halved again at a quarter, pruned and fine-tuned in
between. `results/importances_<net>.json` has the figures that the paper's text draws from it: rank
correlation, and what the median over both layers, of magnitudes or of importances, prunes of each. Needs the
extras `report` and `torch`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

from benchmarks.common import RESULTS, environment
from benchmarks.reproduce.mlprune import NETS
from benchmarks.subjects import SUBJECTS
from onnxprune import Result, calibrate, compress_in_stages, load
from onnxprune.layers import Layer, find_layers
from onnxprune.model import Model
from onnxprune.options import Options
from onnxprune.saliency import saliency

matplotlib.use("svg")
from matplotlib import pyplot

Array = npt.NDArray[np.float64]
Pair = tuple[Array, Array]  # |w| and importance of the weights that are there

COLOURS = {"conv": "#D55E00", "fc": "#0072B2"}
_STAGES = (0.5, 0.25)
_SHOWN = 2000  # weights of a layer in Fig. 2
_EPOCHS = 3


def layers_of(model: Model) -> dict[str, Layer]:
    """The last convolution and the first dense layer behind it."""
    layers = find_layers(model.ir.graph).layers
    last = max(n for n, layer in enumerate(layers) if layer.op == "Conv")
    return {"conv": layers[last], "fc": layers[last + 1]}


def importances(model: Model, data: Any) -> dict[str, Pair]:
    """Magnitudes and MLPrune importances (eq. 7) of both layers, zeros left out."""
    statistics, rng = calibrate(model, data), np.random.default_rng(0)
    damping = Options(ratio=1.0).damping
    found = {}
    for kind, layer in layers_of(model).items():
        weights = layer.read()[0]
        scores = saliency("mlprune", weights, statistics.layers[layer.name], damping, rng)
        found[kind] = (np.abs(weights[weights != 0]), scores[weights != 0])
    return found


def figures(found: dict[str, Pair]) -> dict[str, dict[str, float]]:
    """By layer: rank correlation, and the share below the median over both layers, of either measure."""
    thresholds = [np.median(np.concatenate([pair[k] for pair in found.values()])) for k in (0, 1)]
    return {
        kind: {
            "weights": len(pair[0]),
            "spearman": round(float(spearmanr(*pair).statistic), 4),
            "below median magnitude": round(float((pair[0] < thresholds[0]).mean()), 4),
            "below median importance": round(float((pair[1] < thresholds[1]).mean()), 4),
        }
        for kind, pair in found.items()
    }


def scatter(axes: Any, found: dict[str, Pair]) -> None:
    """Fig. 2."""
    rng = np.random.default_rng(0)
    for kind, (sizes, scores) in found.items():
        rows = rng.choice(len(sizes), min(_SHOWN, len(sizes)), replace=False)
        axes.scatter(sizes[rows], scores[rows], s=4, lw=0, alpha=0.5, color=COLOURS[kind], label=kind)
    lowest = np.quantile(np.concatenate([scores for _, scores in found.values()]), 0.01)
    axes.set(xscale="log", yscale="log", xlabel="|w|", ylabel="importance, nats", ylim=(lowest, None))
    axes.legend(fontsize=7, frameon=False)


def histogram(axes: Any, weights: Array) -> None:
    """Fig. 1: zeros left out, as they would be the only bar."""
    axes.hist(weights[weights != 0], 101, color=COLOURS["fc"])
    axes.set(xlabel="weight", ylabel="weights")


def draw(net: str, models: dict[str, Model], scores: dict[str, dict[str, Pair]], folder: Path) -> None:
    """All four panels, a file each."""
    matplotlib.rcParams.update({"svg.hashsalt": "onnxprune", "svg.fonttype": "none", "font.size": 9})
    for place, (stage, model) in enumerate(models.items()):
        weights = layers_of(model)["fc"].read()[0]
        for name, title, drawn, what in (
            ("fig1", f"First dense layer, {stage}", histogram, weights),
            ("fig2", f"Importance against magnitude, {stage}", scatter, scores[stage]),
        ):
            canvas, axes = pyplot.subplots(figsize=(5.2, 3.6), layout="constrained")
            drawn(axes, what)  # type: ignore[operator]
            axes.set_title(title, fontsize=9)
            canvas.savefig(folder / f"{net}_{name}{'ab'[place]}.svg", metadata={"Date": None})
            pyplot.close(canvas)


def at_a_quarter(dense: Model, data: Any, train: Any) -> Result:
    """By the paper's recipe, fine-tuned at a half and at a quarter."""
    training = {"epochs": _EPOCHS, "objective": "labels", "batch_size": 128}
    return compress_in_stages(
        dense, data, training=training, training_data=train, schedule=_STAGES, recipe="mlprune"
    )


def main() -> None:
    """Prune, score, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("net", choices=("lenet_5",))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    dense, data = load(SUBJECTS[args.net].path), SUBJECTS[args.net].split(0).calibration
    quarter = load(at_a_quarter(dense, data, NETS[args.net].part("train")).model)
    models = {"dense": dense, "at a quarter": quarter}
    scores = {stage: importances(model, data) for stage, model in models.items()}
    record = {stage: figures(found) for stage, found in scores.items()}
    text = json.dumps({"figures": record, "environment": environment(0, None)}, indent=2)
    (args.results / f"importances_{args.net}.json").write_text(text + "\n")
    draw(args.net, models, scores, args.results)
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
