"""The machine: files, processes, signals, terminals, memory and random numbers."""
