"""Where the initializers of a graph live in a module, so that its parameters have their very names.

A name is a path: `layer1.0.weight` is the parameter `weight` of the submodule `0` of `layer1`, as torch
itself would have it; slashes, colons and blanks stay within a part. Names that are no paths of attributes
(`class`, `training`, `.w`, a parameter `a` beside an `a.b`) are kept in a table of their own, and
`OnnxModule` lists them as they are called.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterator
from operator import getitem
from typing import Any

from torch import Tensor, fx, nn

_TABLE = "onnxprune names"  # a submodule that no attribute is called like
_MODULES = "onnxprune branches"
_DOT = "\0"  # in the table for a dot, which torch takes in no name, and in front, to be no attribute's name
_UNSPEAKABLE = frozenset('"\\{}\n\r')  # torch.fx writes other names into its code as they are


class OnnxModule(fx.GraphModule):
    """A graph module whose parameters and buffers may have any name."""

    def _named_members(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        for name, member in super()._named_members(*args, **kwargs):
            before, table, key = name.partition(f"{_TABLE}.")
            yield (before + key[1:].replace(_DOT, ".") if table else name), member


def put(root: nn.Module, name: str, names: Collection[str], tensor: Tensor | nn.Parameter) -> None:
    """Make `tensor` the parameter, or the buffer, of this name."""
    *path, leaf = _path(name, names)
    for part in path:
        root = root._modules.setdefault(part, nn.Module())  # type: ignore[assignment]  # none is None here
    if isinstance(tensor, nn.Parameter):
        root._parameters[leaf] = tensor
    else:
        root._buffers[leaf] = tensor


def put_module(root: nn.Module, module: nn.Module) -> str:
    """Make `module` a submodule that collides with no name; where it is."""
    modules = root._modules.setdefault(_MODULES, nn.Module())
    assert modules is not None
    name = str(len(modules._modules))
    modules._modules[name] = module
    return f"{_MODULES}.{name}"


def read(graph: fx.Graph, name: str, names: Collection[str], table: str) -> fx.Node:
    """Append what reads the tensor of this name; `table` is "_parameters" or "_buffers"."""
    *path, leaf = _path(name, names)
    if path != [_TABLE]:
        return graph.create_node("get_attr", name, name=identifier(name))
    return graph.call_function(getitem, (graph.create_node("get_attr", f"{_TABLE}.{table}"), leaf))


def identifier(name: str) -> str:
    """A name as torch.fx may write it into Python; it makes them unique itself."""
    return re.sub(r"\W|^(?=\d)", "_", name, flags=re.ASCII)


def _path(name: str, names: Collection[str]) -> list[str]:
    """The submodules and the attribute where the tensor is."""
    parts = name.split(".")
    prefixes = {".".join(parts[:end]) for end in range(1, len(parts))}
    if prefixes & set(names) or any(part in _TAKEN or not _sayable(part) for part in parts):
        return [_TABLE, _DOT + name.replace(".", _DOT)]
    return parts


def _sayable(part: str) -> bool:
    return part != "" and not keyword.iskeyword(part) and not _UNSPEAKABLE & set(part)


_TAKEN = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
