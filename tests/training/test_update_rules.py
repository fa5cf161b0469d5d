"""The arithmetic of the optimisers, step by step beside torch's own."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from mlefw.training import update_rules
from mlefw.training.step import step_length

NUM_STEPS = 12
ADAMS = [
    {"betas": betas, "eps": eps, "weight_decay": decay}
    for betas, eps, decay in itertools.product([(0.9, 0.999), (0.0, 0.5), (0.7, 0.0)], [1e-8, 0.1], [0.0, 0.3])
]
SGDS = [
    {"momentum": momentum, "dampening": dampening, "nesterov": nesterov, "weight_decay": decay}
    for momentum, dampening, nesterov, decay in itertools.product([0.0, 0.8], [0.0, 0.4], [False, True], [0.0, 0.3])
    # torch refuses Nesterov's momentum with dampening or without momentum.
    if not nesterov or (momentum and not dampening)
]
CASES: list[tuple[type[Optimizer], dict[str, Any]]] = [
    *((kind, settings) for kind in (Adam, AdamW) for settings in ADAMS),
    *((SGD, settings) for settings in SGDS),
]


def take_step(
    p: Tensor, gradient: Tensor, state: dict[str, Tensor], rate: Tensor, count: float | Tensor, optimizer: Optimizer
) -> None:
    group = optimizer.param_groups[0]
    if isinstance(optimizer, SGD):
        buffer = update_rules.sgd(p, gradient, state.get("momentum_buffer"), rate, group)
        state |= {} if buffer is None else {"momentum_buffer": buffer}
    else:
        for name in ("exp_avg", "exp_avg_sq"):
            state.setdefault(name, torch.zeros_like(p))
        update_rules.adam(p, gradient, state["exp_avg"], state["exp_avg_sq"], count, rate, group)


@pytest.mark.parametrize(("kind", "settings"), CASES)
@pytest.mark.parametrize("counts_in_tensor", [False, True])
def test_every_step_is_that_of_torch_with_a_rate_for_each_row(kind, settings, counts_in_tensor):
    generator = torch.Generator().manual_seed(1)
    rates = [0.01, 0.1, 0.5]
    together = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    alone = [torch.nn.Parameter(row.clone()) for row in together]
    optimizers = [kind([p], lr=rate, **settings) for p, rate in zip(alone, rates, strict=True)]
    state: dict[str, Tensor] = {}
    for count in range(1, NUM_STEPS + 1):
        gradient = torch.randn(3, 4, generator=generator, dtype=torch.float64)
        for p, row, optimizer in zip(alone, gradient, optimizers, strict=True):
            p.grad = row.clone()
            # A scheduler may change a rate at any time.
            optimizer.param_groups[0]["lr"] /= 1.1
            optimizer.step()
        rate = torch.tensor([[optimizer.param_groups[0]["lr"]] for optimizer in optimizers], dtype=torch.float64)
        number = torch.tensor(float(count), dtype=torch.float64) if counts_in_tensor else count
        take_step(together, gradient, state, rate, number, optimizers[0])
        for row, p in zip(together, alone, strict=True):
            torch.testing.assert_close(row, p.detach(), rtol=1e-12, atol=1e-14)
    for i, (p, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
        for name, value in state.items():
            torch.testing.assert_close(value[i], optimizer.state[p][name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_a_constant_gradient_moves_by_the_step_length_in_the_end(kind, settings):
    p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = kind([p], lr=0.01, **{**settings, "weight_decay": 0.0})
    for _ in range(300):
        before = p.detach().clone()
        p.grad = torch.ones_like(p)
        optimizer.step()
    length = torch.as_tensor(step_length(optimizer, optimizer.param_groups[0], p), dtype=torch.float64)
    # torch counts steps in 32 bits, whose powers of beta are as exact as that.
    torch.testing.assert_close(before - p.detach(), length.expand(3), rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_torch_has_no_setting_that_the_rules_do_not_know(kind):
    followed = {"lr", "momentum", "dampening", "nesterov", "betas", "eps", "weight_decay", "decoupled_weight_decay"}
    refused = {"maximize", "amsgrad"}
    of_the_device = {"foreach", "fused", "capturable", "differentiable"}
    group = kind([torch.nn.Parameter(torch.zeros(1))], lr=0.1).param_groups[0]
    unknown = group.keys() - {"params"} - followed - refused - of_the_device
    assert not unknown, f"torch.optim.{kind.__name__} has new settings, which mlefw.training.update_rules ignores"
