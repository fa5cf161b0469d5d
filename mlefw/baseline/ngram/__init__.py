"""The exact side of token sequences: tables of the next token by the tokens before it, from counts in closed form."""
