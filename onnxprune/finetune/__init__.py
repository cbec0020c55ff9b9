"""Fine-tuning in torch: the graph as a module, trained, and its weights back in the same graph.

    from onnxprune import finetune
    module = finetune.to_module("small.onnx")            # parameters are named as the initializers
    ...                                                  # any loop, any optimizer: pruned weights stay zero
    tuned = finetune.from_module(module, model)
    finetune.train("small.onnx", "images.npz", teacher="dense.onnx", output="tuned.onnx", epochs=20)

The only part of the package that imports torch, an optional extra. In reading order: `ops` (the function of
every op), `weights`, `places` (their names), `masks`, `module`; then training: `objective`, `batches`,
`distributed`, `checkpoint`, `training` (the loop), `run` (all of it, as one call).
"""

from __future__ import annotations

from onnxprune.errors import RuntimeUnavailableError

try:
    import torch  # noqa: F401  # to say at once, and clearly, that it is not there
except ImportError as error:
    raise RuntimeUnavailableError(
        "fine-tuning needs torch, which is not installed; install 'onnxprune[torch]'"
    ) from error

from onnxprune.finetune.module import from_module, to_module
from onnxprune.finetune.run import Result, train

__all__ = ["Result", "from_module", "to_module", "train"]
