"""Sessions: what runs, and how it reads when it does not."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from units.nets import parsed

from onnxprune import session as module
from onnxprune.errors import ModelError, RuntimeUnavailableError
from onnxprune.session import Session, providers


def model():
    return parsed(
        """net (float[n,4] x, float[n,4] z) => (float[n,3] y, float[n,4] s) {
            [mm] y = MatMul(x, w)
            [add] s = Add(x, z)
        }""",
        {"w": (4, 3)},
    )


FEEDS = {"x": np.ones((2, 4), np.float32), "z": np.full((2, 4), 2, np.float32)}


@pytest.mark.parametrize("optimise", [True, False])
def test_runs_models_bytes_and_files_alike(tmp_path, optimise):
    ir.save(model(), tmp_path / "m.onnx")
    want = FEEDS["x"] @ model().graph.initializers["w"].const_value.numpy()
    for source in (model(), ir.to_proto(model()).SerializeToString(), tmp_path / "m.onnx"):
        session = Session(source, "cpu", optimise=optimise, threads=1)
        assert (session.inputs, session.outputs) == (["x", "z"], ["y", "s"])
        assert session.provider == "CPUExecutionProvider"
        out = session.run(FEEDS)
        assert list(out) == ["y", "s"]
        np.testing.assert_allclose(out["y"], want, rtol=1e-6)  # float32
        assert (out["s"] == 3).all()


def test_only_what_is_wanted_comes_back_in_that_order():
    assert list(Session(model(), "cpu").run(FEEDS, ["s"])) == ["s"]
    assert list(Session(model(), "cpu").run(FEEDS, ["s", "y"])) == ["s", "y"]


def test_feeds_may_name_more_and_lie_anyhow_in_memory():
    feeds = {**FEEDS, "x": np.asfortranarray(FEEDS["x"]), "labels": np.zeros(2)}
    np.testing.assert_array_equal(Session(model(), "cpu").run(feeds)["s"], 3)


@pytest.mark.parametrize(
    "feeds, named",
    [
        ({"x": FEEDS["x"]}, "z"),  # missing
        ({**FEEDS, "z": np.ones((2, 5), np.float32)}, "z"),  # a wrong shape
        ({**FEEDS, "z": np.ones((2, 4))}, "z|float|double"),  # a wrong dtype
    ],
)
def test_a_run_that_fails_is_a_model_error_in_one_line(feeds, named):
    with pytest.raises(ModelError, match=rf"cannot run the model: .*({named})") as raised:
        Session(model(), "cpu").run(feeds)
    assert "\n" not in str(raised.value)


def test_a_graph_that_cannot_be_loaded_is_a_model_error_in_one_line(tmp_path):
    broken = model()
    next(iter(broken.graph)).op_type = "NoSuchOp"
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for source in (broken, b"junk", tmp_path / "junk.onnx", tmp_path / "absent.onnx"):
        with pytest.raises(ModelError, match="onnxruntime cannot load the model: ") as raised:
            Session(source, "cpu")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : /src/model_load_utils.h:46 void x(int) ONNX Runtime only "
            "*guarantees* support ... Opset 27 is under development and ... for domain ai.onnx is till "
            "opset 26.",
            "it has opset 27, and this onnxruntime ends at 26; upgrade onnxruntime, or export with opset 26",
        ),
        (
            "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Conv(11) node "
            "with name '/a/b'",
            "it has no implementation of Conv '/a/b' for numbers of this type; convert the model to float32",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : Fatal error: acme:Op(-1) is not a registered function/op",
            "it does not know the operator acme:Op; export the model with standard operators",
        ),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT :\n something else", "INVALID_ARGUMENT : something else"),
    ],
)
def test_what_onnxruntime_says_is_put_into_words_with_a_remedy(line, words):
    assert module._words(RuntimeError(line)) == words


def test_models_above_the_protobuf_limit_go_through_a_file(monkeypatch):
    monkeypatch.setattr(module, "_PROTOBUF_LIMIT", 10)
    big = parsed("net (float[n,99] x) => (float[n,7] y) { y = MatMul(x, w) }", {"w": (99, 7)})
    weight = big.graph.initializers["w"].const_value.numpy().copy()
    x = np.ones((2, 99), np.float32)
    np.testing.assert_allclose(Session(big, "cpu").run({"x": x})["y"], x @ weight, rtol=1e-5)  # float32
    # the model given must not point to the file that is gone
    np.testing.assert_array_equal(big.graph.initializers["w"].const_value.numpy(), weight)


class Runtime:
    def __init__(self, *known):
        self._known = list(known)

    def get_available_providers(self):
        return self._known


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    "known, choice, chosen",
    [
        ([CPU], "auto", [CPU]),
        ([CPU], "cpu", [CPU]),
        ([CUDA, CPU], "auto", [CUDA, CPU]),
        ([CUDA, CPU], "cuda", [CUDA, CPU]),
        ([CUDA, CPU], "cpu", [CPU]),
    ],
)
def test_providers(monkeypatch, known, choice, chosen):
    monkeypatch.setattr(module, "onnxruntime", Runtime(*known))
    assert providers(choice) == chosen


def test_cuda_without_cuda_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setattr(module, "onnxruntime", Runtime(CPU))
    with pytest.raises(
        RuntimeUnavailableError, match="--provider cuda: this onnxruntime has no CUDA; install"
    ):
        providers("cuda")


class Unloaded:
    """onnxruntime-gpu on a machine without CUDA: it says what it could do, and does the rest on the CPU."""

    def __init__(self):
        self.__dict__ |= {
            name: getattr(onnxruntime, name) for name in ("SessionOptions", "GraphOptimizationLevel")
        }

    def get_available_providers(self):
        return [CUDA, CPU]

    def preload_dlls(self):
        print("libcudart: cannot open shared object file")

    def InferenceSession(self, model, options, providers):
        assert [name for name, _ in providers] == [CUDA, CPU]
        return onnxruntime.InferenceSession(model, options, providers=[CPU])


def test_cuda_that_does_not_load_is_said(monkeypatch, capsys):
    monkeypatch.setattr(module, "onnxruntime", Unloaded())
    with pytest.raises(RuntimeUnavailableError, match="CUDA does not load here; install"):
        Session(model(), "cuda")
    with pytest.warns(RuntimeWarning, match=r"does not load here.*running on the CPU"):
        assert Session(model()).provider == CPU
    assert capsys.readouterr().out == ""


def test_without_onnxruntime_the_remedy_is_said(monkeypatch):
    monkeypatch.setattr(module, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match=r"onnxruntime is not installed; install one of"):
        Session(model())
