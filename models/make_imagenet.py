"""Writes AlexNet, VGG16 or ResNet-50 with random weights: 61, 138 and 26 million, for time and memory alone.

    python models/make_imagenet.py alexnet --out alexnet.onnx

There is no ImageNet here to train them on, so nothing they say means anything.
"""

from pathlib import Path

import onnx

from nets import alexnet, resnet50, vgg16
from training import options, start, to_onnx

NETS = {"alexnet": alexnet, "vgg16": vgg16, "resnet50": resnet50}


def main() -> None:
    """Parse the options, make the net, export."""
    args = options(__doc__, list(NETS)).parse_args()
    net = start(NETS[args.net], args.seed, args.threads)
    out = args.out or Path(f"{args.net}.onnx")
    onnx.save(to_onnx(net, (3, 224, 224)), out)
    print(f"{out}: {sum(p.numel() for p in net.parameters()):,} parameters")


if __name__ == "__main__":
    main()
