"""The training loop: batches, steps and the figures of an epoch."""
