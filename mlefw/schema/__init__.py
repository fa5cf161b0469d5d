"""The meaning of a table's columns, learnt from the training rows and stored with the model."""
