"""The meaning of a table's columns, learnt once from the training rows and kept with the model."""
