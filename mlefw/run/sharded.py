"""Runs whose processes share the parameters of the network: what they cannot be, and the copy that they train."""

import copy
from dataclasses import replace

import torch
from torch import nn

from mlefw.callback.checkpoints import KeepCheckpoints
from mlefw.configuration.settings import Settings
from mlefw.distributed import sharding, topology
from mlefw.errors import UsageError
from mlefw.model.linear import Linear
from mlefw.objective.linear_terms import TermsModel
from mlefw.objective.objective import Objective
from mlefw.run.estimand import Estimand
from mlefw.training.module import LikelihoodModule


def check(config: Settings, objective: Objective) -> None:
    """Refuse with `trainer.strategy=fsdp` what needs whole tensors in each process.

    Raises:
        UsageError: with the setting, the reason, and what to do instead.
    """
    if not topology.is_sharded(config.trainer):
        return
    optimizer, prior, model = (config.choice(group) for group in ("optimizer", "prior", "model"))
    inner = objective.model.model
    reasons = {
        f"optimizer={optimizer} searches along a line of all parameters, of which each process has a share: "
        "expected optimizer=adam, adamw or sgd": "LBFGS" in config.optimizer["_target_"],
        f"prior={prior} makes weights exactly zero by a map of whole tensors, of which each process has a share: "
        "expected prior=l2 or none": not objective.prior.smooth,
        f"model={model} has few parameters, and its coefficients are compared with the exact ones in each epoch: "
        "expected trainer.strategy=ddp, which keeps them whole": isinstance(inner, Linear),
        "formulas (head.terms) have coefficients, which are compared with the exact ones in each epoch: "
        "expected trainer.strategy=ddp, which keeps them whole": isinstance(inner, TermsModel),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UsageError(f"trainer.strategy=fsdp and {reason}")


def trained_estimand(config: Settings, estimand: Estimand, is_needed: bool) -> Estimand:
    """What the run trains: the estimand itself, or a copy of it where processes share its parameters.

    Args:
        config: the settings.
        estimand: where it is copied, it stays whole on the CPU, and gets the best state after training (`gather`).
        is_needed: whether a whole one is needed after training, as in the first process; else nothing is copied.
    """
    if not topology.is_sharded(config.trainer):
        return estimand
    objective = copy.deepcopy(estimand.objective) if is_needed else estimand.objective
    objective.sharded = True
    return replace(estimand, objective=objective)


def network(module: LikelihoodModule) -> nn.Module | None:
    """The part of a module whose parameters the processes share; None where each has all of it."""
    found = module.objective.model.model
    assert isinstance(found, nn.Module)
    return found if module.objective.sharded else None


def gather(module: LikelihoodModule, keep: KeepCheckpoints, objective: Objective | None) -> None:
    """Bring the best state of a training, gathered from all processes, back to where it is whole.

    Every process has to call it before the group of processes is closed.

    Args:
        module: the module that was trained.
        keep: knows the best state.
        objective: gets the state; None in all processes but the first.
    """
    state: dict[str, torch.Tensor] = sharding.whole(keep.best_state or dict(module.objective.state_dict()))
    if objective is not None:
        # Its numbers are of the precision of the training from here on.
        module.trainer.precision_plugin.convert_module(objective)
        objective.load_state_dict(state)
