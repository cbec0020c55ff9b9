"""Records with everything in them, and the same with something hostile in every text."""

from __future__ import annotations

from typing import Any

from onnxprune.report.schema import (
    CompressionReport,
    CurvePoint,
    EpochRow,
    FinetuneReport,
    GoalReport,
    Histogram,
    InspectedLayer,
    InspectedUnits,
    Inspection,
    LayerRow,
    MetricChange,
    Record,
    SaliencyMap,
    Skipped,
    StageRow,
    SweepReport,
    Trial,
    UnitRow,
)

HOSTILE = (
    """</style></title><script>alert("1")</script>"'><img src="https://e.example/x" onerror='x()'> $\\frac"""
)
LONG = "/features/features.1/conv/a_name_that_never_ends_" + "and_never_ends_" * 8

COMPRESSION = CompressionReport(
    model="models/net.onnx",
    sha256="0123456789abcdef" * 4,
    command="onnxprune compress models/net.onnx --ratio 25% --report 'my page.html'",
    output="net.pruned.onnx",
    kept_ratio=0.25,
    params_before=1_234_567,
    params_after=1_200_000,
    nonzero_after=308_641,
    macs_before=9_000_000,
    macs_after=9_000_000,
    bytes_before=5_000_001,
    bytes_after=1_250_000,
    metric=MetricChange(name="top1", before=0.9173, after=0.9051),
    layers=(
        LayerRow(
            name="/a[0]/Conv",
            op="Conv",
            shape=(16, 3, 3, 3),
            kept=0.6125,
            importance=0.75,
            histogram=Histogram(limit=0.5, before=(1, 20, 300, 20, 2), after=(1, 20, 0, 20, 2)),
        ),
        LayerRow(name=LONG, op="Gemm", shape=(1000, 640), kept=0.2, importance=0.25),
        LayerRow(name="fc", op="Gemm", shape=(10, 64), kept=1),
    ),
    units=(UnitRow(name="/a[0]/Conv", units=16, kept=12, makers=("/a[0]/Conv",), readers=(LONG, "fc")),),
    stages=(
        StageRow(ratio=0.5, kept_ratio=0.5, pruned=0.9, tuned=0.91, seconds=12),
        StageRow(ratio=0.25, kept_ratio=0.25, pruned=0.88, tuned=0.9051, seconds=13),
    ),
    curve=tuple(
        CurvePoint(
            method=method,
            target="ratio",
            value=ratio,
            kept_ratio=ratio,
            macs=9_000_000,
            bytes=int(5e6 * ratio),
            metric=0.92 - loss / ratio,
            chosen=method == "mlprune" and ratio == 0.25,
        )
        for method, loss in (("mlprune", 0.004), ("magnitude", 0.02))
        for ratio in (0.125, 0.25, 0.5)
    ),
    saliency_map=SaliencyMap(
        magnitude=(-4.2, -0.1),
        importance=(-9.5, -2.3),
        kept=(0, 0, 0, 0, 5, 900, 0, 40, 1000),
        pruned=(70, 0, 0, 3, 5, 0, 0, 0, 0),
    ),
    skipped=(
        *(Skipped(name=f"rnn.{place}", reason="recurrent weights are left alone") for place in range(6)),
        Skipped(name="odd", reason="its bias is computed at run time"),
    ),
    goal=GoalReport(
        name="max_drop",
        asked=0.01,
        reached=-0.0022,
        interval=(-0.01, 0.004),
        target="ratio",
        value=0.25,
        measured="50 of test.npz: 100 samples, labelled, held back",
        trials=(
            Trial(value=0.125, reached=0.032, enough=False),
            Trial(value=0.25, reached=0.01, enough=True),
        ),
        searched="50 of test.npz: 100 samples, labelled, searched on",
        dense=0.92,
    ),
    data="data.npz: 100 samples",
    loss="cross-entropy",
    opset_before=11,
    opset_after=18,
    seconds={"statistics": 1.25, "sweep": 2.5},
    warnings=("data-free: noise", LONG),
    options={"ratio": 0.25, "exclude": ["fc"], "seed": 3, "saliency": "mlprune", "surgeon": "sweep"},
    versions={"onnxprune": "0.1.0", "python": "3.11.2"},
)
#: Nothing in it that is not required.
BARE = CompressionReport(
    model="net.onnx",
    kept_ratio=0.25,
    params_before=100,
    params_after=100,
    nonzero_after=25,
    bytes_before=500,
    data="data.npz",
    loss="none",
    opset_before=18,
    opset_after=18,
)
INSPECTION = Inspection(
    model="net.onnx",
    sha256="0123456789abcdef" * 4,
    command="onnxprune inspect net.onnx --html page.html",
    statistics="100 samples, loss cross-entropy",
    bytes=5_000_001,
    parameters=1_234_567,
    opset_before=18,
    inputs=("x FLOAT[n,3]",),
    outputs=("y FLOAT[n,4]",),
    layers=(
        InspectedLayer(
            name=LONG,
            op="Conv",
            shape=(16, 3, 3, 3),
            groups=1,
            weights=432,
            density=1,
            macs=123_456,
            importance=0.9,
            loss_per_weight=1e-6,
        ),
        InspectedLayer(name="fc", op="Gemm", shape=(10, 64), groups=1, weights=640, density=0.5, macs=None),
    ),
    units=(
        InspectedUnits(
            name=LONG,
            units=4,
            makers=(LONG,),
            readers=("fc",),
            parameters=91,
            macs=1000,
            costs=(3e-5, 1e-7, 2e-6, 4e-6),
        ),
        InspectedUnits(name="blocked", units=2, makers=("b",), readers=(), parameters=1, macs=None),
    ),
    frozen=(Skipped(name="fc", reason="'y' is an output of the model"),),
    skipped=(Skipped(name="rnn", reason="recurrent weights are left alone"),),
    notes=(Skipped(name="bn", reason="folded"),),
    versions={"onnxprune": "0.1.0"},
)
FINETUNING = FinetuneReport(
    model="small.onnx",
    teacher="net.onnx",
    output="tuned.onnx",
    objective="distillation, temperature 2",
    epochs=tuple(
        EpochRow(epoch=epoch, loss=1 / epoch if epoch else None, metric=0.9 + epoch / 100)
        for epoch in range(5)
    ),
    best=4,
    metric=MetricChange(name="top1", before=0.9, after=0.94),
    trained=100_000,
    nonzero=10_000,
    bytes_before=50_000,
    bytes_after=50_010,
    skipped=(Skipped(name="rnn", reason="recurrent weights are left alone"),),
    data="x.npz: 1,000 samples",
    device="cpu, 1 process",
    seconds=12.3,
    warnings=("few samples",),
    options={"seed": 0, "epochs": 4},
    versions={"onnxprune": "0.1.0", "torch": "2.13.0"},
)
SWEEP = SweepReport(
    model="net.onnx",
    sha256="0123456789abcdef" * 4,
    command="onnxprune sweep net.onnx --ratio 0.5,0.25,0.125 --report page.html",
    metric="top1",
    dense=0.92,
    params_before=1_234_567,
    macs_before=9_000_000,
    bytes_before=5_000_001,
    points=COMPRESSION.curve,
    skipped=(Skipped(name="mlprune 0.01", reason="more must stay"),),
    data="data.npz: 100 samples",
    measured="test.npz: 50 samples, labelled",
    seconds={"statistics": 1.25},
    warnings=("few samples",),
    options={"seed": 3},
    versions={"onnxprune": "0.1.0"},
)
RECORDS: dict[str, Record] = {
    "compression": COMPRESSION,
    "inspection": INSPECTION,
    "finetuning": FINETUNING,
    "sweep": SWEEP,
}


def spoiled(record: Record) -> Record:
    """The same record with `HOSTILE` behind every text in it, and as a name of an option and a version."""

    def spoil(given: Any) -> Any:
        if isinstance(given, str):
            return given + HOSTILE
        if isinstance(given, dict):
            return {key: spoil(value) for key, value in given.items()}
        return tuple(map(spoil, given)) if isinstance(given, tuple | list) else given

    fields = record.model_dump()
    more = {name: fields[name] | {HOSTILE: HOSTILE} for name in ("options", "versions") if name in fields}
    found = spoil(fields | more)
    if found.get("goal"):
        found["goal"]["name"] = fields["goal"]["name"]  # one of three, and no page without it
    return type(record).model_validate(found)
