"""Statistics: activation means and the Kronecker factors A and G of every layer.

`graph` emits the sums as graph outputs, a layer by an `entry`, those of few rows `waiting` for more.
`collect` runs it and `totals` adds up, `gathering` in several passes where memory is limited: `fitting` says
in which. `factors` is the linear algebra on them, `store` what is known of a layer and of a model, `files`
its file, a `shelf` what waits in temporary ones. `first_order` has what scores of units need of activations
and gradients together.
"""

from onnxprune.statistics.collect import Gathering, collect
from onnxprune.statistics.factors import Damped, Factor, Gram, Samples, damping_pair
from onnxprune.statistics.files import load, save
from onnxprune.statistics.first_order import FirstOrder, FirstOrders, Site, collect_first_order
from onnxprune.statistics.gathering import gather
from onnxprune.statistics.graph import kept_positions, value_bytes
from onnxprune.statistics.store import LayerStatistics, Plan, Statistics, merge

__all__ = [
    "Damped",
    "Factor",
    "FirstOrder",
    "FirstOrders",
    "Gathering",
    "Gram",
    "LayerStatistics",
    "Plan",
    "Samples",
    "Site",
    "Statistics",
    "collect",
    "collect_first_order",
    "damping_pair",
    "gather",
    "kept_positions",
    "load",
    "merge",
    "save",
    "value_bytes",
]
