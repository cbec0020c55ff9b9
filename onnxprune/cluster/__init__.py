"""Cluster: work that is shared out among processes and machines by Ray, the only part that knows Ray.

`connection` finds a cluster or starts one, `gathering` has statistics gathered there: it hands out `shards`
of the data to actors, each a `worker`, which have the model by `parcel`. `layers` spreads what is done layer
by layer. Ray is imported when it is asked for.
"""

from onnxprune.cluster.connection import Cluster, connected, require
from onnxprune.cluster.gathering import collect_on

__all__ = ["Cluster", "collect_on", "connected", "require"]
