"""Reading of files and columns into tables of numbers and text."""
