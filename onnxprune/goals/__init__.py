"""Goals: the budgets people have, in place of a ratio: accuracy to lose, bytes of the file, measured speed.

`axis` has what is searched, `drop`, `size` and `speed` a goal each, `found` is what comes out.
"""

from onnxprune.goals.compress import compress_to_goal

__all__ = ["compress_to_goal"]
