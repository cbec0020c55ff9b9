"""Cluster: work that is shared out among processes and machines by Ray; the only part that knows Ray.

    with cluster.connected("local", workers=4):
        onnxprune.calibrate("model.onnx", "images.npz", output="model.stats")

`connection` finds a cluster or starts one, `gathering` has statistics gathered there: it hands out `shards`
of the data to actors, each a `worker`, which have the model by `parcel`. `spreading` is for what is done
layer by layer. Ray is imported when it is asked for.
"""

from onnxprune.cluster.connection import Cluster, connected, current, require
from onnxprune.cluster.gathering import collect_on, gather
from onnxprune.cluster.spreading import spread

__all__ = ["Cluster", "collect_on", "connected", "current", "gather", "require", "spread"]
