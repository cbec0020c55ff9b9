"""The small networks this project trains itself, as torch modules.

`LeNet300` and `LeNet5` are the two nets of the pruning literature, after LeCun et al. (1998): the fully
connected 784-300-100-10, and the convolutional net in Caffe's variant (20-50-500-10, one ReLU only).
"""

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
