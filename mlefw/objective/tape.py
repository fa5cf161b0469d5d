"""A recorded list of torch kernels, replayed on other inputs without the overhead of Python modules and autograd."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mlefw.system.torch_internals import NORMS, OpOverload, TorchDispatchMode, is_mutable, kernel, storage_id

_READS_VALUES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_PLAIN = (bool, int, float, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format, OpOverload)
_NAME = re.compile(r"\bv\d+\b")

_FUSED = {NORMS: lambda tensors, order: [torch.linalg.vector_norm(one, order) for one in tensors]}
"""Equivalents, for a compiler, of kernels that it cannot decompose."""


class Line(NamedTuple):
    """One assignment of the recorded program.

    Attributes:
        target: the name that is assigned to.
        expression: a kernel call in Python.
        used: names of the tensors in the expression.
        storages: memory that the kernel reads and writes: a result stays valid until something writes there. None for
            a kernel whose result may differ each time.
    """

    target: str
    expression: str
    used: list[str]
    storages: frozenset[int] | None = None


class NotReplayableError(Exception):
    """The computation depends on tensor values, or leaves torch, so that its kernels may differ in the next run."""


class Tape:
    """The kernels of one run of `function`, as straight-line code that can be run on other inputs.

    A replay calls the recorded kernels in their order on inputs of equal shapes, so that its results are bit-identical
    to those of the function. Everything else is fixed: tensors other than the inputs are read at their addresses
    (parameters may change in place), and Python numbers are constants. A kernel that the function calls twice on the
    same tensors is called once.

    Args:
        function: maps tensors to tensors; random numbers are drawn anew in each run.
        inputs: the tensors for the recording.

    Raises:
        NotReplayableError: the function reads the value of a tensor, or uses sparse tensors.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        recorder = _Recorder(inputs)
        with _Guard(), recorder:
            outputs = function(*inputs)
        names = [recorder.name(output) for output in outputs]
        lines = recorder.merged(names)
        self._whole = recorder.code(recorder.views + lines, names)
        self._scope = recorder.constants
        # The kernel behind torch's Python operator has less overhead per call.
        text = recorder.code(lines, names)
        self._run = self._made(text, lambda value: kernel(value) if isinstance(value, OpOverload) else value)
        self._recorded: list[Tensor] = list(outputs)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs for inputs of the recorded shapes and types, as inference tensors, without autograd."""
        with torch.inference_mode():
            return self._run(*inputs)

    def taken(self) -> list[Tensor]:
        """The outputs of the recording, once: it was a run as well, and has advanced the random state."""
        found, self._recorded = self._recorded, []
        return found

    def traceable(self) -> Callable[..., list[Tensor]]:
        """The recorded function for a compiler; views of constants are taken inside, as it must not get aliases."""
        return self._made(
            self._whole, lambda value: _FUSED.get(value, value) if isinstance(value, OpOverload) else value
        )

    def _made(self, text: str, bare: Callable[[Any], Any]) -> Callable[..., list[Tensor]]:
        scope = {name: bare(value) for name, value in self._scope.items()}
        exec(text, scope)
        run: Callable[..., list[Tensor]] = scope["run"]
        return run


class _Guard(TorchFunctionMode):
    """Refuses calls that hand the values of a tensor to numpy or Python, where no kernel could be recorded."""

    _LEAVES = (Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.data_ptr)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self._LEAVES:
            raise NotReplayableError(f"{func.__name__} hands the values of a tensor on")
        return func(*args, **(kwargs or {}))


class _Recorder(TorchDispatchMode):
    """Records every kernel call with names for its arguments and results."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        # Tensors are identified by id(), which is reused once a tensor is freed: keep all of them alive.
        self.alive: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.plain: dict[tuple[type, str], str] = {}
        self.lines: list[Line] = []
        self.views: list[Line] = []
        self.written: set[int] = set()
        self.inputs = [self._new(tensor, "i") for tensor in inputs]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "profiler":
            return func(*args, **kwargs)
        if any(tag in func.tags for tag in _READS_VALUES):
            raise NotReplayableError(f"{func} asks for the value of a tensor")
        used: list[str] = []
        given = [self._argument(value, used) for value in args]
        given += [f"{name}={self._argument(value, used)}" for name, value in kwargs.items()]
        result = func(*args, **kwargs)
        touched = frozenset(_storages([args, kwargs, result]))
        if is_mutable(func):
            self.written |= touched
        storages = None if torch.Tag.nondeterministic_seeded in func.tags else touched
        if func is torch.ops.aten.detach.default:
            self.names[id(result)] = used[0]
            self.alive.append(result)
        elif func is torch.ops.aten.lift_fresh.default:
            # A Python number made a tensor: clone it in each run, because it may be changed in place.
            self._note(torch.ops.aten.clone.default, given, used, self._new(result, "v"), None)
        elif func.is_view and all(name[0] == "c" for name in used):
            # A view of a constant is a constant.
            whole = self._constant(result)
            self.views.append(Line(whole, f"{self._constant(func)}({', '.join(given)})", used))
            for position, tensor in enumerate(result if isinstance(result, list | tuple) else ()):
                self.views.append(Line(self._constant(tensor), f"{whole}[{position}]", [whole]))
        elif isinstance(result, Tensor):
            self._note(func, given, used, self.names.get(id(result)) or self._new(result, "v"), storages)
        else:
            whole = self._new(result, "v")
            self._note(func, given, used, whole, storages)
            for position, tensor in enumerate(result or ()):
                if isinstance(tensor, Tensor):
                    self.lines.append(Line(self._new(tensor, "v"), f"{whole}[{position}]", [whole], storages))
        return result

    def name(self, value: Any) -> str:
        """The name of a recorded tensor, or else of a new constant."""
        return self.names.get(id(value)) or self._constant(value)

    def merged(self, outputs: list[str]) -> list[Line]:
        """The lines without repeated calls whose memory nothing writes to (common subexpression elimination)."""
        known: dict[str, str] = {}
        same: dict[str, str] = {}
        kept = []
        for line in self.lines:
            expression = _NAME.sub(lambda name: same.get(name[0], name[0]), line.expression)
            line = line._replace(expression=expression, used=[same.get(name, name) for name in line.used])
            if line.storages is not None and not line.storages & self.written and line.target not in outputs:
                if expression in known:
                    same[line.target] = known[expression]
                    continue
                known[expression] = line.target
            kept.append(line)
        return kept

    def code(self, lines: list[Line], outputs: list[str]) -> str:
        """Source of the function `run` that executes the lines and frees each tensor after its last use."""
        last = {name: number for number, line in enumerate(lines) for name in line.used}
        text = [f"def run({', '.join(self.inputs)}):"]
        for number, (target, expression, used, _) in enumerate(lines):
            text.append(f"    {target} = {expression}")
            done = {name for name in used if name[0] != "c" and last[name] == number and name not in outputs}
            text += [f"    {' = '.join(sorted(done - {target}))} = None"] if done - {target} else []
        text.append(f"    return [{', '.join(outputs)}]")
        return "\n".join(text)

    def _note(self, func: Any, given: list[str], used: list[str], target: str, storages: frozenset[int] | None) -> None:
        self.lines.append(Line(target, f"{self._constant(func)}({', '.join(given)})", used, storages))

    def _argument(self, value: Any, used: list[str]) -> str:
        if isinstance(value, list | tuple):
            return f"[{', '.join(self._argument(item, used) for item in value)}]"
        name = self.name(value)
        if isinstance(value, Tensor):
            used.append(name)
        return name

    def _constant(self, value: Any) -> str:
        if isinstance(value, _PLAIN):
            # Equal constants share a name; by repr, which tells −0.0 from 0.0.
            key = (type(value), repr(value))
            if key not in self.plain:
                self.plain[key] = self._new(value, "c")
                self.constants[self.plain[key]] = value
            return self.plain[key]
        name = self._new(value, "c")
        self.constants[name] = value
        return name

    def _new(self, value: Any, kind: str) -> str:
        name = f"{kind}{len(self.alive)}"
        self.alive.append(value)
        if isinstance(value, Tensor):
            self.names[id(value)] = name
        return name


def _storages(value: Any) -> Iterator[int]:
    """The storages of all tensors in a nested value."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise NotReplayableError(f"a tensor in {value.layout} lies in several places")
        yield storage_id(value)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _storages(item)
    elif isinstance(value, dict):
        yield from _storages(list(value.values()))
