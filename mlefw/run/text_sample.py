"""Texts that a model of the next token draws, token after token."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from mlefw.errors import UsageError
from mlefw.objective.objective import Objective
from mlefw.run.checkpoint import Trained
from mlefw.schema.prompt import prompt_tokens
from mlefw.schema.tokens import TokenSchema
from mlefw.system.random_state import generator

STREAM = "text sample"
"""Name of the random stream of draws."""

MOST_TOKENS = 10_000_000
"""Most tokens of a sample."""


def text_sample(
    objective: Objective,
    schema: TokenSchema,
    length: int,
    prompt: Any = "",
    seed: int = 0,
    temperature: float = 1.0,
) -> str | bytes | np.ndarray:
    """A prompt and the tokens that a model draws behind it: str of characters, bytes, or ids (n,) int64.

    Args:
        objective: the model.
        schema: what its tokens are.
        length: number of tokens to draw.
        prompt: the text that is gone on from, as `prompt_tokens` takes it; where it is empty, the first token is drawn
            from the null model, since the model itself forecasts none that no other precedes.
        seed: of the draws, which depend on it alone.
        temperature: see `forecasts`.

    Raises:
        UsageError: a setting is out of range, or the prompt holds what the training text does not.
    """
    check_draws(length, seed, temperature)
    known = torch.from_numpy(prompt_tokens(schema, prompt))
    found = continued(objective, known.unsqueeze(0), length, generator(seed, STREAM), temperature)
    return schema.decode(found[0].numpy())


@torch.no_grad()
def continued(
    objective: Objective, tokens: Tensor, length: int, random: torch.Generator, temperature: float = 1.0
) -> Tensor:
    """Tokens (n, m) with `length` more behind each row, (n, m + length) int64, each drawn given those before it.

    Args:
        objective: the model, in evaluation mode.
        tokens: what is gone on from, int64; m may be 0.
        length: number of tokens to draw.
        random: the generator of the draws, on the CPU.
        temperature: see `forecasts`.
    """
    known = tokens.shape[1]
    found = torch.cat([tokens, tokens.new_zeros(len(tokens), length)], 1)
    for end in range(known, known + length):
        p = forecasts(objective, found[:, :end], temperature)
        found[:, end] = torch.multinomial(p, 1, generator=random).squeeze(1)
    return found


@torch.no_grad()
def forecasts(objective: Objective, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Probabilities of the token behind each row of tokens (n, m), (n, K) float64; the last T tokens are the context.

    Fewer than T tokens are filled up behind with token 0: outputs at a position do not depend on later ones, and models
    that take rows of T tokens alone can be drawn from, too. Without any token (m = 0) they are those of the null model.

    Args:
        objective: the model.
        tokens: the tokens so far, int64.
        temperature: 1 for the model's own probabilities p; else they are proportional to p to the power 1/temperature.
    """
    head, shape = objective.head, objective.model.shape
    device, window = head.center.device, int(shape.length)  # type: ignore[union-attr, arg-type]
    size = min(tokens.shape[1], window)
    if size == 0:
        eta = head.center[: head.eta_dim].expand(len(tokens), -1)
    else:
        x = tokens.new_zeros(len(tokens), window)
        x[:, :size] = tokens[:, -size:]
        offset = torch.zeros(len(tokens), window, dtype=torch.float64, device=device)
        eta = objective.eta(x.to(device), offset)[:, size - 1]
    p = probabilities(head(eta)).double().cpu()
    return p if temperature == 1 else (p.log() / temperature).softmax(-1)


def text_schema(trained: Trained) -> TokenSchema:
    """The schema of a model of the next token.

    Raises:
        UsageError: the model is another one.
    """
    if not isinstance(trained.schema, TokenSchema):
        raise UsageError(
            f"run={trained.path}: the model does not forecast the next token of a text\n"
            "  expected: a run with data=text or data=shakespeare"
        )
    return trained.schema


def check_draws(length: int, seed: int, temperature: float) -> None:
    """Check the settings of a sample.

    Raises:
        UsageError: naming the setting.
    """
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= MOST_TOKENS:
        raise UsageError(f"length={length}: expected a whole number of tokens from 1 to {MOST_TOKENS:,}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed={seed}: expected a whole number of at least 0")
    number = isinstance(temperature, int | float) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < math.inf:
        raise UsageError(
            f"temperature={temperature}: expected a number above 0; 1 draws from the model's distribution, and a small "
            "one, such as 0.01, nearly always takes the likeliest token"
        )


def probabilities(distribution: Distribution) -> Tensor:
    """Probabilities of all tokens, (n, K)."""
    probs = getattr(distribution, "probs", None)
    if not isinstance(probs, Tensor) or probs.ndim != 2:
        raise UsageError(f"a {type(distribution).__name__} has no probability of each token: expected head=categorical")
    return probs
