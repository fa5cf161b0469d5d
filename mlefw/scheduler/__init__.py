"""Schedulers, which change the learning rate from one optimiser step to the next; further ones are those of torch."""
