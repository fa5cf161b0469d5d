"""The processes of one run: how many there are, which of them this one is, and how they are started."""
