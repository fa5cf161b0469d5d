"""Conformance checks: what mlefw counts on in a part of each kind, one module a kind.

`check_head` of `mlefw.testing.head`, and likewise `check_prior`, `check_batch`, `check_inputs`, `check_model`,
`check_loss`, `check_metric` and `check_source`, take a part and raise a `ConformanceError` that names every rule it
breaks. What is cheap among them is held against the plugins of a run as it is prepared (`mlefw.testing.plugins`).
"""
