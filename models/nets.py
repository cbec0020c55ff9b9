"""The networks of the papers, as torch modules.

`LeNet300` and `LeNet5` are the two nets of the pruning literature, after LeCun et al. (1998): the fully
connected 784-300-100-10, and the convolutional net in Caffe's variant (20-50-500-10, one ReLU only).
`small_conv`, `medium_conv` and `vgg11` are those of the Mean Replacement paper (appendix 6.3); `cifarnet`,
`alexnet` and `vgg16` those of MLPrune. Images are `[batch, 3, side, side]`, 32 a side for ten classes and 224
for a thousand; all give logits. Layers are named `conv1`, `conv2`, …, `fc1`, …, and so are their weights.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise

from torch import Tensor, nn


class LeNet300(nn.Module):
    """LeNet-300-100: `[batch, 784]` pixels in 0..1 to ten logits; 266,610 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(784, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


class LeNet5(nn.Module):
    """LeNet-5 as Caffe has it: `[batch, 1, 28, 28]` pixels in 0..1 to ten logits; 431,080 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, 10)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.pool(self.conv2(self.pool(self.conv1(x))))
        return self.fc2(self.fc1(x.flatten(1)).relu())


def small_conv() -> nn.Module:
    """SMALL CONV: three convolutions without padding, two dense layers and the logits; 424,394 parameters."""
    return _unpadded((32, 64, 128), (512, 128))


def medium_conv() -> nn.Module:
    """MEDIUM CONV: SMALL CONV at twice the width; 1,688,458 parameters."""
    return _unpadded((64, 128, 256), (1024, 256))


def vgg11() -> nn.Module:
    """VGG11 for CIFAR-10, dense layers of 512, no normalisation; 9,750,922 parameters."""
    return _vgg(((64,), (128,), (256, 256), (512, 512), (512, 512)), (512, 512, 512, 10))


def vgg16() -> nn.Module:
    """VGG16 (Simonyan & Zisserman 2014) for ImageNet, without its dropout; 138,357,544 parameters."""
    stages = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    return _vgg(stages, (512 * 7 * 7, 4096, 4096, 1000))


def cifarnet() -> nn.Module:
    """CifarNet: the convolutions of Caffe's cifar10_full, the two dense layers of cifar10_quick; 145,578.

    Left out is local response normalisation, which in Caffe's file is within a channel and has no ONNX op;
    the hidden dense layer has a ReLU.
    """
    convolutions = [
        ("conv1", nn.Conv2d(3, 32, 5, padding=2)),
        ("pool1", nn.MaxPool2d(3, 2, padding=1)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv2d(32, 32, 5, padding=2)),
        ("relu2", nn.ReLU()),
        ("pool2", nn.AvgPool2d(3, 2, padding=1)),
        ("conv3", nn.Conv2d(32, 64, 5, padding=2)),
        ("relu3", nn.ReLU()),
        ("pool3", nn.AvgPool2d(3, 2, padding=1)),
    ]
    return _named([*convolutions, *_dense((64 * 4 * 4, 64, 10))])


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR-10 (He et al. 2016), shortcuts of option B, no normalisation; 271,690 parameters.

    Its weights are torch's own initial ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        widths = (16, 16, 16, 16, 32, 32, 32, 64, 64, 64)
        self.blocks = nn.Sequential(*(_Block(*pair) for pair in pairwise(widths)))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        return self.fc(self.blocks(self.stem(x).relu()).mean((2, 3)))


class _Block(nn.Module):
    """Two convolutions and a shortcut, which is a convolution where the width changes."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        stride = 1 if before == after else 2
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's values."""
        return (self.conv2(self.conv1(x).relu()) + self.shortcut(x)).relu()


def alexnet() -> nn.Module:
    """AlexNet (Krizhevsky et al. 2012), in its two groups, without LRN and dropout; 60,965,224 parameters."""
    convolutions = [
        *_convolution(1, 3, 96, 11, stride=4, padding=2),
        ("pool1", nn.MaxPool2d(3, 2)),
        *_convolution(2, 96, 256, 5, padding=2, groups=2),
        ("pool2", nn.MaxPool2d(3, 2)),
        *_convolution(3, 256, 384, 3, padding=1),
        *_convolution(4, 384, 384, 3, padding=1, groups=2),
        *_convolution(5, 384, 256, 3, padding=1, groups=2),
        ("pool5", nn.MaxPool2d(3, 2)),
    ]
    return _named([*convolutions, *_dense((256 * 6 * 6, 4096, 4096, 1000))])


def resnet50() -> nn.Module:
    """ResNet-50 (He et al. 2016) as in torchvision, strides in the 3×3 kernels; 25,557,032 parameters."""
    blocks: list[nn.Module] = []
    before = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for place in range(count):
            blocks.append(_Bottleneck(before, width, stride if place == 0 else 1))
            before = 4 * width
    net = nn.Sequential(
        *_normalised(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks, nn.AdaptiveAvgPool2d(1)
    )
    net.append(nn.Flatten()).append(nn.Linear(before, 1000))
    return net


class _Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1, normalised, plus what they start from, projected where its shape differs."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_normalised(before, width, 1, 1),
            nn.ReLU(),
            *_normalised(width, width, 3, stride),
            nn.ReLU(),
            *_normalised(width, 4 * width, 1, 1),
        )
        projected = stride > 1 or before != 4 * width
        self.shortcut = nn.Sequential(*_normalised(before, 4 * width, 1, stride) if projected else ())

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's values."""
        return (self.body(x) + self.shortcut(x)).relu()


def _normalised(before: int, after: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(after)]


Named = tuple[str, nn.Module]


def _unpadded(widths: Sequence[int], hidden: Sequence[int]) -> nn.Module:
    """Kernels 5, 3, 3, each with a ReLU and a pooling by two: 32 → 14 → 6 → 2 pixels a side."""
    layers: list[Named] = []
    for place, (pair, kernel) in enumerate(zip(pairwise((3, *widths)), (5, 3, 3), strict=True), 1):
        layers += [*_convolution(place, *pair, kernel), (f"pool{place}", nn.MaxPool2d(2))]
    return _named([*layers, *_dense((widths[-1] * 2 * 2, *hidden, 10))])


def _vgg(stages: Sequence[Sequence[int]], dense: Sequence[int]) -> nn.Module:
    """Stages of 3×3 convolutions that keep the size, a pooling by two after each."""
    layers: list[Named] = []
    before, place = 3, 0
    for stage, widths in enumerate(stages, 1):
        for width in widths:
            place += 1
            layers += _convolution(place, before, width, 3, padding=1)
            before = width
        layers.append((f"pool{stage}", nn.MaxPool2d(2)))
    return _named([*layers, *_dense(dense)])


def _convolution(place: int, before: int, after: int, kernel: int, **given: int) -> list[Named]:
    return [(f"conv{place}", nn.Conv2d(before, after, kernel, **given)), (f"relu{place}", nn.ReLU())]


def _dense(widths: Sequence[int]) -> list[Named]:
    """Dense layers with a ReLU between two."""
    layers: list[Named] = [("flatten", nn.Flatten())]
    for place, (before, after) in enumerate(pairwise(widths), 1):
        layers += [(f"fc{place}", nn.Linear(before, after)), (f"relu_fc{place}", nn.ReLU())]
    return layers[:-1]


def _named(layers: Iterable[Named]) -> nn.Module:
    """The layers in a row, with He's initial weights: torch's are too small for deep nets without norm."""
    net = nn.Sequential(OrderedDict(layers))
    linear = [module for module in net if isinstance(module, nn.Conv2d | nn.Linear)]
    for module in linear:
        nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is linear[-1] else "relu")
        nn.init.zeros_(module.bias)
    return net
