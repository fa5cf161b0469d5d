"""A network whose parameters are split over the processes, each of which holds a share of every tensor.

torch's fully sharded data parallelism (`fully_shard`; Zhao et al., 2023) gathers the parameters of one unit of the
network at a time for its forward and backward passes, and adds up and splits their gradients. Between passes each
parameter is a `DTensor`: it has the shape of the whole, and holds the rows of this process alone.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mlefw.distributed import ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_HOW_COMPUTED = ("fused", "foreach")
"""Settings of an optimiser that say how its step is computed on a device, and not what it is."""


def shard(network: nn.Module, device: torch.device) -> None:
    """Split the parameters of a network over all processes, and move it to the device of this one.

    Each block of a sequence (see `units`) is moved and split by itself, so that the whole network never is on a device.
    Parameters that are single numbers stay whole in each process. All processes get the values of rank 0.

    Args:
        network: whose forward pass is called as a whole; changed in place.
        device: of this process.
    """
    # Imported late: it takes a second, and nothing else needs it.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks.world_size(),))
    single = {p for p in network.parameters() if p.ndim == 0}
    for unit in (*units(network), network):
        unit.to(device)
        ranks.broadcast([t.detach() for t in (*unit.parameters(), *unit.buffers()) if not is_sharded(t)])
        # Resharded after the forward pass also in the outermost unit: between passes all parameters are shares.
        part: Any = fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=single)
        # Gradients are summed, not averaged: each process has a part of the sum over a batch. A sum that is scaled by
        # the backend itself is unknown to gloo, which connects CPUs.
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)


def units(network: nn.Module) -> list[nn.Module]:
    """The blocks of a network that are gathered one at a time; the rest of it is one more unit.

    They are the outermost elements of `nn.Sequential` and `nn.ModuleList` that are made of layers themselves, such as
    the blocks of a transformer. A block that shares a parameter with what is outside it is none.
    """
    uses = Counter(id(p) for _, p in network.named_parameters(remove_duplicate=False))
    found, inside = [], set[int]()
    for holder in network.modules():
        for block in holder if isinstance(holder, nn.Sequential | nn.ModuleList) else ():
            own = Counter(id(p) for _, p in block.named_parameters(remove_duplicate=False))
            is_composite = any(next(child.parameters(), None) is not None for child in block.children())
            if id(block) in inside or not is_composite or any(uses[key] != count for key, count in own.items()):
                continue
            found.append(block)
            inside |= {id(part) for part in block.modules()}
    return found


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether this process holds a share of the tensor alone."""
    return hasattr(tensor, "to_local")


def own(tensor: Tensor) -> Tensor:
    """The share of a tensor that this process holds, through which gradients flow; the tensor itself if it is whole."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(content: Any) -> Any:
    """Nested dicts and lists with each shared-out tensor gathered, one at a time.

    Every process has to call it with containers of the same keys at the same time. Rank 0 gets the whole tensors, on
    the CPU; in the other processes an empty tensor stands for each.
    """
    if isinstance(content, dict):
        # The order of gathering may not depend on that of the keys, which processes may have filled in any order.
        known = {key: whole(content[key]) for key in sorted(content, key=str)}
        return {key: known[key] for key in content}
    if isinstance(content, list | tuple):
        return type(content)(whole(part) for part in content)
    if not (isinstance(content, Tensor) and is_sharded(content)):
        return content
    full: Tensor = content.full_tensor().detach()
    return full.cpu() if ranks.rank() == 0 else full.new_empty(0)


def placed(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor split in the way of another one of its shape; itself where it or the other one is not whole.

    Nothing is sent: each process takes its share of the value that it has.
    """
    if not is_sharded(like) or is_sharded(value) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import DTensor

    shares = value.chunk(ranks.world_size())
    share = shares[ranks.rank()] if ranks.rank() < len(shares) else value[:0]
    # A copy, since a view would keep all of the value in memory.
    share = share.to(own(like).device, copy=True)
    mesh, placements = like.device_mesh, like.placements
    return DTensor.from_local(share, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())


def load(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the state of a module, whose tensors may be shares, from one whose tensors may be whole."""
    known = module.state_dict()
    module.load_state_dict({name: placed(t, known[name]) if name in known else t for name, t in state.items()})


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the state of an optimiser, whose tensors may be shares, from one whose tensors may be whole."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    held = {
        key: {name: placed(v, parameters[key]) if isinstance(v, Tensor) else v for name, v in values.items()}
        for key, values in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": held})


def with_own_kernels(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """A stored state of an optimiser, whose steps are computed by the kernels of the present one.

    They may differ between a run with shares of parameters and one with whole ones.
    """
    groups = [
        {**group, **{name: known[name] for name in _HOW_COMPUTED if name in known and name in group}}
        for group, known in zip(state["param_groups"], optimizer.param_groups, strict=False)
    ]
    return {**state, "param_groups": [*groups, *state["param_groups"][len(groups) :]]}


@contextmanager
def mixed(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Let an optimiser update parameters in one call of which some are shares and others whole in each process."""
    if not any(is_sharded(p) for p in parameters):
        yield
        return
    from torch.distributed.tensor.experimental import implicit_replication

    with implicit_replication(), warnings.catch_warnings():
        # torch proposes to replicate parameters of one entry by other means.
        warnings.filterwarnings("ignore", "Found a non-scalar tensor with numel=1")
        yield


@torch.no_grad()
def joint_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all entries of some tensors, of which shares are added up over the processes; a scalar."""
    assert tensors
    zero = own(tensors[0]).new_zeros(())
    shares = sum((own(t).square().sum() for t in tensors if is_sharded(t)), start=zero)
    ranks.all_reduce([shares])
    return sum((t.square().sum() for t in tensors if not is_sharded(t)), start=shares).sqrt()


def is_finite(tensor: Tensor) -> bool:
    """Whether all entries of a tensor are finite numbers, over all processes."""
    return bool(largest(tensor).isfinite()) if is_sharded(tensor) else bool(tensor.isfinite().all())


@torch.no_grad()
def largest(tensor: Tensor) -> Tensor:
    """The largest absolute value in a tensor, over all processes; NaN where there is one. A scalar."""
    part = own(tensor)
    value = part.abs().max() if part.numel() else part.new_zeros(())
    if is_sharded(tensor):
        # Infinite for a value that is not a number: NaN may be lost in a maximum over processes.
        value = value.nan_to_num(nan=torch.inf, posinf=torch.inf)
        ranks.maximum(value)
    return value
