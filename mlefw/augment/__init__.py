"""Augmentations: random changes of images in training steps, which leave alone what is to be predicted."""
