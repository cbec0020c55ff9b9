"""Statistics: activation means and the Kronecker factors A and G of every layer.

`graph` emits the sums as graph outputs, `collect` runs and adds them, `factors` is the linear algebra on them
and `store` their file.
"""

from onnxprune.statistics.collect import Gathering, collect
from onnxprune.statistics.factors import Damped, Factor, Gram, Samples, damping_pair
from onnxprune.statistics.store import LayerStatistics, Statistics, load, merge, save

__all__ = [
    "Damped",
    "Factor",
    "Gathering",
    "Gram",
    "LayerStatistics",
    "Samples",
    "Statistics",
    "collect",
    "damping_pair",
    "load",
    "merge",
    "save",
]
