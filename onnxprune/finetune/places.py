"""Where the initializers of a graph live in a module, so that its parameters have their very names.

A name is a path: `layer1.0.weight` is the parameter `weight` of the submodule `0` of `layer1`, as torch itself
would have it; slashes, colons and blanks stay within a part. `named_parameters()` joins the parts again, so
that any name at all survives. What Python cannot spell as attributes (`type`, `class`, a parameter `a` beside
an `a.b`) is read from the module's tables instead.
"""

from __future__ import annotations

import keyword
from collections.abc import Collection
from operator import getitem

from torch import Tensor, fx, nn

_UNSPEAKABLE = frozenset('"\\{}\n\r')  # torch.fx writes other names into the code as they are


def put(root: nn.Module, name: str, tensor: Tensor | nn.Parameter) -> None:
    """Make `tensor` the parameter, or the buffer, of this name."""
    *path, leaf = name.split(".")
    for part in path:
        root = root._modules.setdefault(part, nn.Module())  # type: ignore[assignment]  # none is None here
    if isinstance(tensor, nn.Parameter):
        root._parameters[leaf] = tensor
    else:
        root._buffers[leaf] = tensor


def read(graph: fx.Graph, name: str, names: Collection[str], table: str) -> fx.Node:
    """Append what reads the tensor of this name; `table` is "_parameters" or "_buffers"."""
    *path, leaf = name.split(".")
    if _spells(name, names):
        return graph.create_node("get_attr", name, name=name)
    node = graph.create_node("get_attr", "_modules" if path else table)
    for number, part in enumerate(path, 1):
        module = graph.call_function(getitem, (node, part))
        node = graph.call_function(getattr, (module, "_modules" if number < len(path) else table))
    return graph.call_function(getitem, (node, leaf))


def _spells(name: str, names: Collection[str]) -> bool:
    """Whether attribute access finds the tensor."""
    parts = name.split(".")
    prefixes = {".".join(parts[:end]) for end in range(1, len(parts))}
    return not (prefixes & set(names) or any(part in _TAKEN or not _sayable(part) for part in parts))


def _sayable(part: str) -> bool:
    return part != "" and not keyword.iskeyword(part) and not _UNSPEAKABLE & set(part)


_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
