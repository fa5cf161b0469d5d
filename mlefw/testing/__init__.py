"""Conformance checks for plugins: the rules of each kind of part, one module for each kind.

`check_head` of `mlefw.testing.head`, and likewise `check_prior`, `check_batch`, `check_average`, `check_augment`,
`check_inputs`, `check_model`, `check_loss`, `check_metric` and `check_source`, take a part and raise a
`ConformanceError` that names every rule it breaks. The cheap rules are checked for the plugins of a run before it
starts (`mlefw.testing.plugins`).
"""
