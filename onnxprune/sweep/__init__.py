"""The sweep: the dense and the pruned network side by side, layer after layer.

`frontier` holds both networks' values at a moving cut, `targets` finds what a layer should produce, `moments`
gathers sums, `ridge` says how far to trust them, `walk` goes through all of them.
"""

from onnxprune.sweep.walk import Limits, Swept, sweep

__all__ = ["Limits", "Swept", "sweep"]
