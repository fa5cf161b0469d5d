"""Files and columns as tables of numbers and text."""
