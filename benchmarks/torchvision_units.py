"""Half of the units of every family of torchvision's classification models, from both of torch's exporters.

Random weights, no data: what is measured is correctness. The file without the units must run in onnxruntime,
optimisations off and on, with outputs of the same shape, equal to those of the whole graph with the same
units silenced. One model: `python -m benchmarks.torchvision_units --only resnet18 --recipe dynamo`.
Needs torchvision: `pip install --no-deps torchvision==0.28.0` beside CPU torch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.common import ROOT, Case, Column, Row, Table, run
from onnxprune.errors import ModelError

TABLE = Table(
    "torchvision",
    "Half of the units of torchvision's classification models",
    "`--units 0.5 --scope layer --score norm --replace zero` on random weights. Largest difference between "
    "the file without the units and the whole graph with the same units silenced, relative to the largest "
    "output, with onnxruntime's optimisations off and on; `kept` is the share of parameters that stays, "
    "then Torch-Pruning 1.6.1's at 50 %. The bar on the difference: float32 rounding through a deep network. "
    "ConvNeXt, Swin, ViT, MaxViT with `--approximate`: their LayerNorm axes are cut, too, and the silenced "
    "graph they are compared with normalises the units that stay; `exact` is the share kept without.",
    (
        Column("families", "families", "d"),
        Column("units", "units cut", "d"),
        Column("kept", "parameters kept", ".3f"),
        Column("exact", "exact", ".3f"),
        Column("rival", "Torch-Pruning", ".3f"),
        Column("plain", "difference, off", ".1e"),
        Column("optimised", "difference, on", ".1e"),
        Column("frozen", "frozen because"),
        Column("seconds", "seconds", ".0f"),
    ),
)
_TOLERANCE = 1e-4
_RIVAL = {
    "alexnet": 0.267, "vgg11_bn": 0.258, "resnet18": 0.261, "resnet50": 0.271, "resnext50_32x4d": 0.271,
    "mobilenet_v2": 0.349, "mobilenet_v3_small": 0.358, "efficientnet_b0": 0.322, "mnasnet0_5": 0.406,
    "regnet_y_400mf": 0.277, "squeezenet1_1": 0.355, "googlenet": 0.290, "inception_v3": 0.272,
    "densenet121": 0.285, "convnext_tiny": 0.260,
}  # fmt: skip
_APPROXIMATE = ("convnext", "swin", "vit", "maxvit")  # whose axes go through LayerNorm
_SIZES = {"inception_v3": 299}
_EXPORTERS = ("dynamo", "torchscript")
MODELS = (
    "alexnet", "convnext_base", "convnext_large", "convnext_small", "convnext_tiny", "densenet121",
    "densenet161", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2",
    "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7",
    "efficientnet_v2_l", "efficientnet_v2_m", "efficientnet_v2_s", "googlenet", "inception_v3", "maxvit_t",
    "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_large",
    "mobilenet_v3_small", "regnet_x_16gf", "regnet_x_1_6gf", "regnet_x_32gf", "regnet_x_3_2gf",
    "regnet_x_400mf", "regnet_x_800mf", "regnet_x_8gf", "regnet_y_128gf", "regnet_y_16gf", "regnet_y_1_6gf",
    "regnet_y_32gf", "regnet_y_3_2gf", "regnet_y_400mf", "regnet_y_800mf", "regnet_y_8gf", "resnet101",
    "resnet152", "resnet18", "resnet34", "resnet50", "resnext101_32x8d", "resnext101_64x4d",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5",
    "shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "swin_b", "swin_s", "swin_t", "swin_v2_b",
    "swin_v2_s", "swin_v2_t", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19",
    "vgg19_bn", "vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2",
    "wide_resnet50_2",
)  # fmt: skip
CASES = [Case(model, 0.5, exporter, _TOLERANCE) for model in MODELS for exporter in _EXPORTERS]


def measure(case: Case, options: argparse.Namespace) -> Row:
    """The row of one export, in a process of its own, so that its memory is given back."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else "benchmarks.torchvision_units"]
    child = subprocess.run(
        [*command, "--one", case.model, case.recipe], capture_output=True, text=True, cwd=ROOT, timeout=1500
    )
    if child.returncode:
        words = child.stderr.strip().splitlines() or [f"ended with {child.returncode}"]
        raise ModelError(words[-1][:300])
    row: Row = json.loads(child.stdout.splitlines()[-1])
    equal = max(row["plain"], row["optimised"]) <= _TOLERANCE
    return row | {"rival": _RIVAL.get(case.model), "ok": equal}


def one(name: str, exporter: str) -> Row:
    """Export `name`, cut, and compare."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        size = export(name, exporter, path)
        return compared(path, (2, 3, size, size), approximate=name.startswith(_APPROXIMATE))


def export(name: str, exporter: str, path: Path) -> int:
    """Write the model with random weights and norm statistics; the image size it takes."""
    sys.path.insert(0, str(ROOT.parent / "shared" / "tools"))
    import torch
    import torchvision_cpu  # noqa: F401
    from torchvision import models

    torch.manual_seed(0)
    given: dict[str, Any] = {"weights": None}
    if name in ("googlenet", "inception_v3"):
        given |= {"aux_logits": False, "init_weights": False}
    model = models.get_model(name, **given).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor, low, high in ((module.running_var, 0.5, 1.5), (module.running_mean, -0.1, 0.1)):
                assert tensor is not None
                tensor.uniform_(low, high)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
        if isinstance(module, torch.nn.Linear) and not module.weight.any():  # ViT's head: all outputs were 0
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    size = _SIZES.get(name, 224)
    x = torch.rand(2, 3, size, size)
    torch.onnx.export(model, (x,), str(path), dynamo=exporter == "dynamo", verbose=False)
    return size


def compared(path: Path, shape: tuple[int, ...], *, approximate: bool) -> Row:
    """Cut half of every family, and compare with silencing."""
    from benchmarks.kept_norms import normalise_kept
    from onnxprune import load
    from onnxprune.cut import Evidence, decide, remove_cut
    from onnxprune.data import open_data
    from onnxprune.layers import find_layers
    from onnxprune.options import resolve
    from onnxprune.passes.replace import replace_units
    from onnxprune.progress import Silent
    from onnxprune.session import Session
    from onnxprune.statistics import Gathering

    loaded = load(path)
    options = resolve(units=0.5, scope="layer", score="norm", replace="zero", provider="cpu")
    graph = loaded.ir.graph
    images = np.random.default_rng(0).random(shape, np.float32)
    data = open_data(images, graph.inputs, batch_size=shape[0])
    evidence = Evidence(data, None, Gathering(), Silent())
    cut = decide(loaded.ir, find_layers(graph), options, evidence)
    total = _size(loaded.ir)
    exact = None
    if approximate:
        small = loaded.ir.clone()
        remove_cut(small, cut)
        exact = _size(small) / total
        options = options.model_copy(update={"approximate": True})
        cut = decide(loaded.ir, find_layers(graph), options, evidence)
    silenced = loaded.ir.clone()
    replace_units(silenced, *cut.masks())
    if approximate:
        normalise_kept(silenced, loaded.ir, cut.families.groups, cut.units())
    feeds = {graph.inputs[0].name or "": images}
    want = Session(silenced, "cpu", optimise=False).run(feeds)
    del silenced
    small = loaded.ir.clone()
    remove_cut(small, cut)
    row: Row = {
        "families": len(cut.families.families),
        "units": len(cut.units()),
        "kept": _size(small) / total,
        "exact": exact,
        "frozen": "; ".join(
            f"{count}: {reason}"
            for reason, count in Counter(entry.reason for entry in cut.skipped).most_common(3)
        ),
    }
    for key, optimise in (("plain", False), ("optimised", True)):
        got = Session(small, "cpu", optimise=optimise).run(feeds)
        assert {name: array.shape for name, array in got.items()} == {n: a.shape for n, a in want.items()}
        row[key] = max(
            float(np.abs(got[name] - want[name]).max() / max(np.abs(want[name]).max(), 1e-6)) for name in want
        )
    return row


def _size(model: ir.Model) -> int:
    from onnxprune.model import parameters

    return sum(tensor.size for tensor in parameters(model).values())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:4])))
    else:
        run(TABLE, CASES, measure, __doc__)
