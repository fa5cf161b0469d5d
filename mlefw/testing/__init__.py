"""Conformance checks of every kind of part: what mlefw counts on in a head, prior, batch regime, model, source, … ."""
