"""One module for each command of the mlefw program."""
