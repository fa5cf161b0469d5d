"""Models, which map the inputs of a row to the raw output, from which the head computes eta."""
