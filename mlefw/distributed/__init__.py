"""Runs in several processes, called ranks: how they are started, and what they exchange."""
