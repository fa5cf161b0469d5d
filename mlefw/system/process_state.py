"""The global state of the calling Python process, which mlefw changes for a while and restores."""

import logging
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def preserved() -> Iterator[None]:
    """Run the block with torch's default settings, and restore the caller's global state afterwards, also on an error.

    Inside, gradients are computed, new tensors are float32 on the CPU by default, and autocast is off. Restored are the
    global random generators of Python, numpy and torch, torch's modes and number of threads, levels and handlers of
    loggers, and environment variables.
    """
    with ExitStack() as stack:
        for save in (_generators, _modes, _loggers, _environment):
            stack.callback(save())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_default_dtype(torch.float32)
        yield


def _generators() -> Callable[[], None]:
    python, legacy, state = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    seed = torch.initial_seed()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() and torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(state)
        if devices is not None:
            torch.cuda.set_rng_state_all(devices)
        elif torch.cuda.is_available():
            # The GPUs came into use inside the block: seed them as the caller's last torch.manual_seed would have.
            torch.cuda.manual_seed_all(seed)

    return restore


def _modes() -> Callable[[], None]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn: Any = torch.backends.cudnn
    benchmark, exact = cudnn.benchmark, cudnn.deterministic
    dtype, threads, precision = torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()

    def restore() -> None:
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.benchmark, cudnn.deterministic = benchmark, exact
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)

    return restore


def _loggers() -> Callable[[], None]:
    known = [
        logging.root,
        *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger)),
    ]
    states = [(one, one.level, list(one.handlers), one.propagate, one.disabled) for one in known]

    def restore() -> None:
        for one, level, handlers, propagate, disabled in states:
            # `setLevel` clears the cached levels of all loggers, so it is called only where something changed.
            if one.level != level:
                one.setLevel(level)
            one.handlers, one.propagate, one.disabled = handlers, propagate, disabled

    return restore


def _environment() -> Callable[[], None]:
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})

    return restore
