"""The transformer for sequences of tokens."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from mlefw.errors import UsageError


class Block(nn.Module):
    """Attention over the positions, then two layers at each position, each added to its input (pre-norm).

    Shapes: z (n, T, width) → (n, T, width). With `causal`, a position depends on itself and earlier ones alone.
    """

    def __init__(self, width: int, heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.attention_dropout, self.mlp_dropout = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:
        """The output, (n, T, width)."""
        z = z + self.attention_dropout(self.project(self.attend(self.query_key_value(self.attention_norm(z)))))
        return z + self.mlp_dropout(self.mlp(self.mlp_norm(z)))

    def attend(self, z: Tensor) -> Tensor:
        """Weighted means of values over positions, in each head by its own weights: (n, T, 3 width) → (n, T, width)."""
        split = z.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, n, heads, T, width / heads)
        query, key, value = split.unbind(0)
        mixed = scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return mixed.transpose(1, 2).flatten(2)


class Transformer(nn.Module):
    """Token and position embeddings, blocks of attention (Vaswani et al., 2017), and a layer that gives the raw output.

    With a target at each position (positions = (T,)) the output at t depends on tokens up to t alone. With one target
    per row the mean over positions goes into the last layer. Training starts at the null model: the last layer starts
    at zero, or with `tied` the gain of the normalisation before it.

    Shapes: x (n, T) int64, values below num_tokens → raw (n, *positions, eta_dim).

    Args:
        num_tokens: number of distinct tokens.
        length: number of tokens T of a row.
        positions: shape of the targets of a row: (T,), or () for one target.
        eta_dim: number of outputs per target.
        width: size of the embedding of a token.
        layers: number of blocks.
        heads: number of attention heads of a block.
        dropout: probability with which training drops an entry of an embedding, or of what a block adds.
        tied: whether the weights of the last layer are the token embedding (Press & Wolf, 2017).

    Raises:
        UsageError: a setting is out of range, or does not fit the rows.
    """

    replayable = True

    def __init__(
        self,
        num_tokens: int,
        length: int,
        positions: Sequence[int],
        eta_dim: int,
        width: int = 64,
        layers: int = 2,
        heads: int = 4,
        dropout: float = 0.0,
        tied: bool = False,
    ) -> None:
        super().__init__()
        _check(width, layers, heads, dropout)
        if tuple(positions) not in ((), (length,)):
            raise UsageError(
                f"model=transformer: rows of {length} tokens have targets of shape {tuple(positions)}: "
                f"expected one target per row, or ({length},), one for each token"
            )
        if tied and eta_dim != num_tokens:
            raise UsageError(
                f"model.tied=true: there are {num_tokens} tokens, and the head has {eta_dim} columns of eta: "
                "expected equal numbers, as of head=categorical for the next token, or model.tied=false"
            )
        self.causal = len(positions) == 1
        self.tokens, self.places = nn.Embedding(num_tokens, width), nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.places, std=0.02)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(width, heads, dropout, self.causal) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        if tied:
            nn.init.zeros_(self.norm.weight)
            self.bias = nn.Parameter(torch.zeros(eta_dim))
        else:
            self.last = nn.Linear(width, eta_dim)
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The raw output, (n, *positions, eta_dim); a row may be shorter than `length`."""
        z = self.dropout(self.tokens(x) + self.places[: x.shape[1]])
        z = self.norm(self.blocks(z))
        z = z if self.causal else z.mean(1)
        return self.last(z) if hasattr(self, "last") else linear(z, self.tokens.weight, self.bias)


def _check(width: int, layers: int, heads: int, dropout: float) -> None:
    for name, value, least in (("width", width, 1), ("layers", layers, 0), ("heads", heads, 1)):
        if value < least:
            raise UsageError(f"model.{name}={value}: expected a whole number of at least {least}")
    if width % heads:
        near = heads * max(1, round(width / heads))
        raise UsageError(
            f"model.width={width} is no multiple of model.heads={heads}: expected one, such as model.width={near}"
        )
    if not 0 <= dropout < 1:
        raise UsageError(f"model.dropout={dropout}: expected a probability in [0, 1)")
