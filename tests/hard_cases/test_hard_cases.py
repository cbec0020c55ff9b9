"""Every hard case through the public call: it works, or is refused with the sentence in its table."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from hard_cases import CASES
from hard_cases.case import Case
from onnxprune.errors import OnnxPruneError
from onnxprune.report.inspection import inspect_model
from onnxprune.session import Session

KEPT = 0.95  # so much that outputs must stay close, and so little that something must go
UNITS = 0.25
#: ‖y − dense‖ / ‖dense‖ with 5 % of the weights gone: of normal ones the 5 % smallest have 0.01 % of all squares,
#: which is 1 % of the norm; layers on layers and widths of a few units make it several times that.
CLOSE = 0.15
PARAMETERS = [pytest.param(case, id=case.id, marks=[pytest.mark.slow] if case.slow else []) for case in CASES]


def compressed(case: Case, folder: Path, **options):
    """The dense file, feeds, result and the file made; or the sentence that refuses, MODEL being the path."""
    path, feeds = case.model(folder), case.feeds(np.random.default_rng(0))
    output = folder / "small.onnx"
    try:
        result = onnxprune.compress(path, feeds, output=output, **{**options, **case.options})
    except OnnxPruneError as error:
        assert not output.exists()
        return str(error).replace(str(path), "MODEL")
    return path, feeds, result, output


def as_expected(sentence: str, pattern: str | None) -> bool:
    return (
        pattern is not None
        and re.fullmatch(re.escape(pattern).replace("…", ".*"), sentence, re.DOTALL) is not None
    )


def outputs(path: Path, feeds) -> dict[str, np.ndarray]:
    """Without the nodes' names, which say nothing, but onnxruntime refuses equal ones."""
    if len(list(path.parent.iterdir())) > 2:  # with data files, which may be large
        return Session(path, "cpu", threads=1).run(feeds)
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.name = ""
    return Session(proto.SerializeToString(), "cpu", threads=1).run(feeds)


def difference(got: np.ndarray, want: np.ndarray) -> float:
    got, want = got.astype(np.float64), want.astype(np.float64)
    return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-12))


@pytest.mark.parametrize("case", PARAMETERS)
def test_weights(case: Case, tmp_path: Path) -> None:
    done = compressed(case, tmp_path, ratio=KEPT)
    if isinstance(done, str):
        assert as_expected(done, case.sentences[0]), done
        return
    path, feeds, result, output = done
    assert case.sentences[0] is None, "it works now: say so in the table"
    report = result.report
    assert report.nonzero_after <= KEPT * report.params_before
    assert {entry.name: entry.reason for entry in report.skipped} == dict(case.reasons)
    feeds = {name: array[:1] for name, array in feeds.items()} if case.one_by_one else feeds
    dense, small = outputs(path, feeds), outputs(output, feeds)
    assert dense.keys() == small.keys()
    for name, want in dense.items():
        assert small[name].shape == want.shape and small[name].dtype == want.dtype
        if want.dtype.kind == "f":
            assert difference(small[name], want) < CLOSE


@pytest.mark.parametrize("case", PARAMETERS)
def test_units(case: Case, tmp_path: Path) -> None:
    done = compressed(case, tmp_path, units=UNITS)
    if isinstance(done, str):
        assert as_expected(done, case.sentences[1]), done
        return
    path, feeds, result, output = done
    assert case.sentences[1] is None, "it works now: say so in the table"
    assert result.report.params_after < result.report.params_before
    feeds = {name: array[:1] for name, array in feeds.items()} if case.one_by_one else feeds
    dense, small = outputs(path, feeds), outputs(output, feeds)
    assert {name: array.shape for name, array in dense.items()} == {n: a.shape for n, a in small.items()}


@pytest.mark.parametrize("case", [case for case in CASES if not case.slow], ids=lambda case: case.id)
def test_inspection(case: Case, tmp_path: Path) -> None:
    """What can be loaded can be looked at; layers and what is left alone are the same as in a compression."""
    path = case.model(tmp_path)
    try:
        found = inspect_model(path)
    except OnnxPruneError as error:
        assert as_expected(str(error).replace(str(path), "MODEL"), case.sentences[0])
        return
    structural = {name for name, why in case.reasons.items() if "left alone" in why or "quantised" in why}
    assert structural <= {entry.name for entry in found.skipped}
