"""The only module that knows onnxruntime: which provider runs, on how many threads, and how errors read.

A `Session` runs a graph on named numpy arrays. Providers are chosen once, by `providers()`; nothing falls
back silently: `auto` takes CUDA only when onnxruntime itself offers it, `cuda` without CUDA is an error.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxprune.errors import ModelError, RuntimeUnavailableError
from onnxprune.threads import processors

try:
    import onnxruntime
except ImportError:  # said clearly at first use, so that `onnxprune --help` works without it
    onnxruntime = None

Provider = Literal["auto", "cpu", "cuda"]
Array = npt.NDArray[Any]
OnDevice = Any  # an onnxruntime.OrtValue

_FATAL_ONLY = 4  # onnxruntime's log levels: its warnings about unused initializers are not the user's
#: What onnxruntime says, and what is meant.
_SAID = (
    (
        r"Opset (\d+) is under development.* is till opset (\d+)",
        r"it has opset \1, and this onnxruntime ends at \2; upgrade onnxruntime, or export with opset \2",
    ),
    (
        r"Could not find an implementation for (\w+)\(\d+\) node with name '(.*?)'",
        r"it has no implementation of \1 '\2' for numbers of this type; convert the model to float32",
    ),
    (
        r"Fatal error: (\S+?)(?:\(-?\d+\))? is not a registered function/op",
        r"it does not know the operator \1; export the model with standard operators",
    ),
)
_PROTOBUF_LIMIT = 2**31 - 2**20  # a serialised model above 2 GiB cannot be handed over as bytes

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
# TF32 keeps three digits of a product, too few for statistics that are to be inverted. The default search for
# convolutions tries every algorithm at every new shape: dearer than it saves where many graphs run briefly.
_OPTIONS = {_CUDA: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}}
_UNLOADED = (
    "onnxruntime-gpu is installed, but its CUDA does not load here; install CUDA and cuDNN of the versions "
    "it was built for (pip install 'onnxruntime-gpu[cuda,cudnn]')"
)


def providers(choice: Provider = "auto") -> list[str]:
    """The execution providers for `choice`, most wanted first.

    Raises:
        RuntimeUnavailableError: onnxruntime is missing, or `cuda` was asked for and is not there.
    """
    if onnxruntime is None:
        raise RuntimeUnavailableError(
            "onnxruntime is not installed; install one of 'onnxprune[cpu]' or 'onnxprune[gpu]' (not both)"
        )
    has_cuda = _CUDA in onnxruntime.get_available_providers()
    if choice == "cuda" and not has_cuda:
        raise RuntimeUnavailableError(
            "--provider cuda: this onnxruntime has no CUDA; install 'onnxprune[gpu]' instead of [cpu], "
            "or use --provider cpu"
        )
    return [_CUDA, _CPU] if has_cuda and choice != "cpu" else [_CPU]


class Session:
    """One loaded graph. `outputs` are the names `run` returns, in graph order.

    `threads` is how many onnxruntime computes with, 0: one for each processor. `alternating` is for sessions
    that run in turns: threads of one that ran wait spinning for its next call, and would take the processors
    from the next session; with it they sleep at once, which costs each call the time to wake them (25 µs).
    `lean` gives every buffer back when it is done with: else those of the first run are kept, in sizes
    rounded up, and the next run wants one block for all of its own.
    """

    def __init__(
        self,
        model: ir.Model | bytes | Path,
        provider: Provider = "auto",
        *,
        optimise: bool = True,
        threads: int = 0,
        alternating: bool = False,
        lean: bool = False,
    ) -> None:
        """Load `model`.

        Raises:
            ModelError: onnxruntime refuses the graph; the message is onnxruntime's, on one line.
            RuntimeUnavailableError: `cuda` was asked for, and its libraries do not load.
        """
        chosen = providers(provider)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        self.threads: int = threads or processors()
        options.intra_op_num_threads = self.threads
        options.add_session_config_entry("session.force_spinning_stop", str(int(alternating)))
        options.enable_mem_pattern = options.enable_cpu_mem_arena = not lean
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        try:
            self._session = _open(model, options, [(name, _OPTIONS.get(name, {})) for name in chosen])
        except Exception as error:  # onnxruntime raises a dozen unrelated classes for one thing
            raise ModelError(f"onnxruntime cannot load the model: {_words(error)}") from error
        self.inputs: list[str] = [value.name for value in self._session.get_inputs()]
        self.outputs: list[str] = [value.name for value in self._session.get_outputs()]
        self.provider: str = self._session.get_providers()[0]
        if self.provider != chosen[0]:  # onnxruntime goes on without a provider that does not load
            if provider == "cuda":
                raise RuntimeUnavailableError(f"--provider cuda: {_UNLOADED}, or use --provider cpu")
            warnings.warn(f"{_UNLOADED}; running on the CPU", RuntimeWarning, stacklevel=2)

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str] | None = None) -> dict[str, Array]:
        """Run one batch; feeds the graph does not name are ignored.

        Raises:
            ModelError: a node failed; the message names it as onnxruntime does.
        """
        names = list(wanted) if wanted is not None else self.outputs
        with _failing():
            return dict(zip(names, self._session.run(names, self._known(feeds)), strict=True))

    def hold(self, array: Array) -> OnDevice:
        """A copy of `array` on the session's device."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self._device, 0)

    def run_held(
        self, feeds: Mapping[str, Array], held: Mapping[str, OnDevice], staying: Collection[str]
    ) -> tuple[dict[str, Array], dict[str, OnDevice]]:
        """Run one batch with more inputs `held` on the device, where the outputs `staying` stay.

        Raises:
            ModelError: a node failed; the message names it as onnxruntime does.
        """
        binding = self._session.io_binding()
        for name, array in self._known(feeds).items():
            binding.bind_cpu_input(name, array)
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for name in self.outputs:
            binding.bind_output(name, self._device if name in staying else "cpu")
        with _failing():
            self._session.run_with_iobinding(binding)
        made = dict(zip(self.outputs, binding.get_outputs(), strict=True))
        here = {name: value.numpy() for name, value in made.items() if name not in staying}
        return here, {name: made[name] for name in staying}

    def _known(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.asarray(feeds[name], order="C") for name in self.inputs if name in feeds}

    @property
    def _device(self) -> str:
        return "cuda" if self.provider == _CUDA else "cpu"


def on_gpu(choice: Provider) -> bool:
    """Whether `choice` is CUDA, as far as that is known before a graph is loaded.

    Raises:
        RuntimeUnavailableError: as for `providers`.
    """
    return providers(choice)[0] == _CUDA


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers, those of subgraphs included."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


@cache
def _load_cuda() -> None:
    """Let onnxruntime find CUDA libraries that pip installed; it prints at length where there are none."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        onnxruntime.preload_dlls()


def _open(model: ir.Model | bytes | Path, options: Any, chosen: list[tuple[str, dict[str, str]]]) -> Any:
    if any(name == _CUDA for name, _ in chosen):
        _load_cuda()
    if isinstance(model, Path):
        return onnxruntime.InferenceSession(str(model), options, providers=chosen)
    if isinstance(model, ir.Model):
        if weight_bytes(model) > _PROTOBUF_LIMIT:
            with TemporaryDirectory(prefix="onnxprune-") as folder:
                path = Path(folder) / "model.onnx"
                ir.save(model, path, external_data="model.data")
                return onnxruntime.InferenceSession(str(path), options, providers=chosen)
        model = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=chosen)


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """What fails in a run is a `ModelError`."""
    try:
        yield
    except Exception as error:  # onnxruntime raises a dozen unrelated classes for one thing
        raise ModelError(f"onnxruntime cannot run the model: {_words(error)}") from error


def _words(error: Exception) -> str:
    """What went wrong, on one line: in our words, with a remedy, where that is known, else onnxruntime's."""
    line = " ".join(str(error).split())
    said = (found.expand(words) for sign, words in _SAID if (found := re.search(sign, line)))
    return next(said, re.sub(r"^\[ONNXRuntimeError\] : \d+ : ", "", line))
