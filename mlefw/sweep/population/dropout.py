"""Dropout in a group: each member drops what it would drop alone, since it draws from its own random stream."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, pad

from mlefw.objective.objective import Objective
from mlefw.system.random_state import RandomStream


class _Masked(nn.Module):
    """Multiplies by the next mask, in place of `nn.Dropout`; without masks it returns its input.

    Args:
        position: of the layer among those of the network.
        masks: shared by all layers of a network, which call for masks in the order of the forward pass.
    """

    replayable = True

    def __init__(self, position: int, masks: "Masks") -> None:
        super().__init__()
        self.position = position
        # A tuple hides it from torch, which would take it for a part of each layer.
        self.masks = (masks,)

    def forward(self, x: Tensor) -> Tensor:
        """The input with some entries set to zero and the others enlarged."""
        return self.masks[0].applied(x, self.position)


class Masks:
    """The masks of one forward pass of the members of a group, whose networks agree but for the share they drop.

    Args:
        template: the objective whose layers of dropout are replaced; it has as many as any member has.
        members: the objectives.
        streams: the random stream of the steps of each.
    """

    def __init__(self, template: Objective, members: Sequence[Objective], streams: Sequence[RandomStream]) -> None:
        shares = [[layer.p for layer in _layers(objective)] for objective in members]
        self.num_layers = max(map(len, shares))
        # A network without dropout may have no such layers.
        self.shares = [own or [0.0] * self.num_layers for own in shares]
        for position, layer in enumerate(_layers(template)):
            _replace(template, layer, _Masked(position, self))
        self.template, self.streams = template, list(streams)
        self.calls: dict[object, list[tuple[int, torch.Size, torch.dtype]]] = {}
        self._seen: list[tuple[int, torch.Size, torch.dtype]] | None = None
        self._next: Iterator[Tensor] | None = None
        self.generator = _generator(template.head.center.device) if self.num_layers else None
        self.states = [self._state(stream) for stream in streams] if self.num_layers else []

    def keep(self, members: Sequence[int]) -> None:
        """Keep the members at these positions, and drop the others."""
        self.shares, self.streams = [self.shares[i] for i in members], [self.streams[i] for i in members]
        self.states = [self.states[i] for i in members] if self.states else []

    def store(self, member: int) -> None:
        """Bring the random stream of a member to where its draws have led."""
        if self.generator is not None:
            with self.streams[member]:
                self.generator.set_state(self.states[member])

    def applied(self, x: Tensor, position: int) -> Tensor:
        """What a layer of dropout makes of its input."""
        if self._seen is not None:
            self._seen.append((position, x.shape, x.dtype))
        return x if self._next is None else x * next(self._next)

    @contextmanager
    def used(self, masks: Sequence[Tensor]) -> Iterator[None]:
        """Let a forward pass in the block use these masks."""
        self._next = iter(masks) if masks else None
        try:
            yield
        finally:
            self._next = None

    @torch.no_grad()
    def draw(self, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The masks of each layer in the order of the forward pass, (M, batch, …) each.

        Args:
            x: inputs of the model of one member, (batch, *input_shape).
            sizes: number of rows in the batch of each member; the masks of a smaller batch end in ones.
        """
        if self.generator is None:
            return []
        calls, drawn = self._calls(x), list[list[Tensor]]()
        outside = self.generator.get_state()
        try:
            for i, (shares, size) in enumerate(zip(self.shares, sizes, strict=True)):
                self.generator.set_state(self.states[i])
                ones = (torch.ones(size, *shape[1:], dtype=dtype, device=x.device) for _, shape, dtype in calls)
                own = [dropout(one, shares[k]) for one, (k, _, _) in zip(ones, calls, strict=True)]
                self.states[i] = self.generator.get_state()
                short = len(x) - size
                drawn.append([_lengthened(mask, short) for mask in own] if short else own)
        finally:
            self.generator.set_state(outside)
        return [torch.stack(masks) for masks in zip(*drawn, strict=True)]

    def _calls(self, x: Tensor) -> list[tuple[int, torch.Size, torch.dtype]]:
        """The layers that a forward pass calls, in its order, with shape and type of their inputs."""
        if x.shape not in self.calls:
            self._seen = []
            self.template.model.model(x)  # type: ignore[operator]
            self.calls[x.shape], self._seen = self._seen, None
        return self.calls[x.shape]

    def _state(self, stream: RandomStream) -> Tensor:
        assert self.generator is not None
        with stream:
            return self.generator.get_state()


def _layers(objective: Objective) -> list[nn.Dropout]:
    return [module for module in objective.modules() if type(module) is nn.Dropout]


def _replace(whole: nn.Module, part: nn.Module, by: nn.Module) -> None:
    for module in list(whole.modules()):
        for name, child in list(module.named_children()):
            if child is part:
                setattr(module, name, by)


def _generator(device: torch.device) -> torch.Generator:
    """The generator from which layers on a device draw."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


def _lengthened(mask: Tensor, rows: int) -> Tensor:
    return pad(mask, (*(0, 0) * (mask.ndim - 1), 0, rows), value=1.0)
