"""The papers' networks are as large as published, and the recipes export what they trained."""

from pathlib import Path

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    """`models` is a folder of scripts: they find one another there."""
    monkeypatch.syspath_prepend(ROOT / "models")


#: name -> (parameters, pixels a side, classes); by hand from the layer lists of the papers.
SIZES = {
    "small_conv": (424_394, 32, 10),
    "medium_conv": (1_688_458, 32, 10),
    "vgg11": (9_750_922, 32, 10),
    "cifarnet": (145_578, 32, 10),
    "alexnet": (60_965_224, 224, 1000),
    "vgg16": (138_357_544, 224, 1000),
    "resnet50": (25_557_032, 224, 1000),
}


@pytest.mark.parametrize("name", SIZES)
def test_networks_have_the_papers_sizes(name):
    import nets

    parameters, side, classes = SIZES[name]
    with torch.device("meta"):  # nothing is allocated
        net = getattr(nets, name)()
        assert net(torch.zeros(2, 3, side, side)).shape == (2, classes)
    assert sum(p.numel() for p in net.parameters()) == parameters


def test_small_conv_does_not_pad():
    import nets

    shapes = []
    net = nets.small_conv()
    for layer in net:
        if isinstance(layer, torch.nn.MaxPool2d):
            layer.register_forward_hook(lambda _module, _given, y: shapes.append(tuple(y.shape[1:])))
    net(torch.zeros(1, 3, 32, 32))
    assert shapes == [(32, 14, 14), (64, 6, 6), (128, 2, 2)]


def test_every_hidden_layer_has_a_relu_and_the_logits_have_none():
    import nets

    for name in ("small_conv", "medium_conv", "vgg11", "vgg16", "alexnet"):
        with torch.device("meta"):
            kinds = [type(layer).__name__ for layer in getattr(nets, name)()]
        linear = [place for place, kind in enumerate(kinds) if kind in ("Conv2d", "Linear")]
        assert all(kinds[place + 1] == "ReLU" for place in linear[:-1])
        assert linear[-1] == len(kinds) - 1


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_trained_net_is_exported_as_it_is(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    import nets
    import training

    torch.manual_seed(0)
    x, y = torch.randn(128, 3, 32, 32), torch.arange(128) % 10
    net = nets.cifarnet()
    steps = []
    training.train(net, x, y, epochs=2, lr=0.01, decay=0.0, batch=64, after_step=steps.append)
    assert steps == [1, 2, 3, 4]
    onnx.save(training.to_onnx(net, (3, 32, 32)), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    (got,) = session.run(["logits"], {"input": x.numpy()})
    want = net(x).detach().numpy()
    # float32, sums of at most 1,024 terms in another order
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    wrong = int((want.argmax(1) != y.numpy()).sum())
    assert training.errors(tmp_path / "net.onnx", x, y) == wrong


def test_the_jpeg_set_is_decoded_and_normalised(shared):
    pytest.importorskip("PIL")
    import cifar_jpeg

    rows = np.array([7, 3])
    x, y = cifar_jpeg.images(shared / "cifar10", "test", rows)
    assert x.shape == (2, 3, 32, 32) and x.dtype == np.float32 and y.dtype == np.int64
    pixels = x.transpose(0, 2, 3, 1) * cifar_jpeg.STD + cifar_jpeg.MEAN
    whole = np.rint(pixels * 255)
    assert whole.min() >= 0 and whole.max() <= 255
    np.testing.assert_allclose(pixels * 255, whole, atol=1e-3)  # float32 of values below 256
    alone, label = cifar_jpeg.images(shared / "cifar10", "test", rows[1:])
    np.testing.assert_array_equal(alone[0], x[1])
    assert label[0] == y[1]
