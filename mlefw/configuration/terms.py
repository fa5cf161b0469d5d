"""Settings of formulas: `formula=` and `head.terms` become `data.terms`, a right side for each parameter."""

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

from mlefw.configuration.admission import admit
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.reading.formula import quoted, read_terms, split_formula

ETA = "eta"
"""The name under which all columns of eta have one formula, for heads without named parameters."""


def insert_terms(config: Node) -> None:
    """Read `formula` and `head.terms`, and set `data.terms`, target and features, and what the head predicts.

    A parameter with a formula is predicted; in `formula` the parts stand for the parameters in their order, but that
    the part behind the first is of the zeros, where the head has a parameter of them (`second_part`). A part that is
    missing is 1, an intercept, where the head would predict the parameter from all features.

    Args:
        config: a configuration in plain containers, which is changed. One that was changed before stays as it is.

    Raises:
        UsageError: a formula cannot be read, or stands for a parameter that the head has not.
    """
    head, data, text = config.get("head") or {}, config.get("data") or {}, config.get("formula")
    given: dict[str, Any] = dict(head.pop("terms", None) or {})
    shifts, variance = data.get("offset"), data.get("variance_weight")
    if data.get("terms"):
        return  # A stored configuration, in which they were inserted before.
    if not isinstance(text, str | None) or not isinstance(variance, str | None):
        return  # A value of a wrong type is told with all others (`ranges`).
    if not text and not given and not variance and not (isinstance(shifts, dict) and shifts):
        return
    names = parameters(head)
    added = _shifts(head, data, names)
    parts = _by_parameter(text, given, names, head, data)
    terms = {name: parts.get(name) for name in names if name in parts or name in added or _is_predicted(head, name)}
    for name, part in list(terms.items()):
        if part is None and (text or not _is_predicted(head, name)):
            terms[name] = part = "1"
        if part is None:
            continue
        read_terms(part, f"formula={text!r}" if text and name not in given else f"head.terms.{name}")
        # One value for all rows is a shared parameter, for which the exact side knows more.
        is_one = part.strip() == "1" and name not in added
        if not _set_source(head, name, "shared" if is_one else "predicted"):
            continue
        if is_one:
            del terms[name]
    # A parameter of a component that becomes predicted stands before those of the head around it.
    data["terms"] = {name: terms[name] for name in parameters(head) if name in terms}
    if added:
        data["shifts"] = added


def _by_parameter(text: str | None, given: Node, names: list[str], head: Node, data: Node) -> dict[str, str]:
    """The right sides that `formula` and `head.terms` state, by parameter."""
    order = _in_formula(head, names)
    told = _parts(text, order, data, _takes_trials(head)) if text else []
    if len(told) == 1 and getattr(_kind(head), "composite", False):
        # Levels are alike: one formula is of all of them.
        told *= len([name for name in names if name not in given])
        order = [name for name in names if name not in given]
    parts = dict(zip(order, told, strict=False))
    for name, part in given.items():
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UsageError(f"head.terms.{name}: the head has no parameter {name!r}, but {', '.join(names)}{hint}")
        if name in parts:
            raise UsageError(f"head.terms.{name} and formula={text!r} both hold terms of {name}: expected one of them")
        parts[name] = str(part)
    return parts


def _shifts(head: Node, data: Node, names: list[str]) -> dict[str, list[str]]:
    """What is added to the eta of each parameter: `data.offset` of several, and `data.variance_weight`."""
    found: dict[str, list[str]] = {}
    if isinstance(data.get("offset"), dict) and data["offset"]:
        for name, column in data["offset"].items():
            if name not in names:
                raise UsageError(f"data.offset.{name}: the head has no parameter {name!r}, but {', '.join(names)}")
            found.setdefault(name, []).append(quoted(str(column)))
        data["offset"] = None
    weight = data.get("variance_weight")
    if weight:
        known = getattr(_kind(head), "variance_parameter", None)
        if known is None or not isinstance(head.get(known[0], "shared"), str):
            raise UsageError(
                f"data.variance_weight={weight} divides the dispersion of a row, and this head has none to learn: "
                "expected head=gaussian or head=gamma, or data.weight for frequencies"
            )
        name, power = known
        found.setdefault(name, []).append(f"{power:g}*log({quoted(str(weight))})")
    return found or dict(data.get("shifts") or {})


def _parts(text: str, names: list[str], data: Node, takes_trials: bool) -> list[str]:
    """The right sides of a formula, whose left side becomes the target; of `Surv(time, event)` also the event."""
    whole, survival = text, re.match(r"\s*Surv\s*\(([^(),=]+),([^(),]+)\)(\s*~.*)", text, re.DOTALL)
    if survival:
        event, *code = (part.strip().strip("`'\"") for part in survival[2].split("=="))
        if data.get("event") not in (None, event):
            raise UsageError(f"formula={text!r} and data.event={data['event']} differ: expected one of them")
        data["event"], whole = event, survival[1] + survival[3]
        if code:
            data["event_code"] = code[0]
    targets, parts = split_formula(whole)
    if takes_trials and re.match(r"\s*cbind\s*\([^-]*\)\s*~", whole):
        raise UsageError(
            f"formula={text!r}: whether {targets[-1]!r} counts failures or trials is not told by cbind; expected "
            f"[{targets[0]}, trials] ~ with a column of trials, or cbind({targets[0]}, trials - {targets[0]}) ~"
        )
    if len(parts) > len(names):
        raise UsageError(
            f"formula={text!r} has {len(parts)} parts, and the head has {len(names)} parameters: {', '.join(names)}"
        )
    target = targets[0] if len(targets) == 1 else targets
    if data.get("target") not in (None, target):
        raise UsageError(
            f"formula={text!r} has the target {target!r}, and data.target={data['target']}: expected one of them"
        )
    data["target"] = target
    return parts


def parameters(head: Node) -> list[str]:
    """Names of the distribution parameters of a head that terms may stand for, in its order."""
    kind = _kind(head)
    links: Mapping[str, Any] | None = getattr(kind, "inverse_links", None)
    if links is not None:
        return list(links)
    if getattr(kind, "composite", False):
        return list(_built(head).eta_names)
    if not isinstance(head.get("component"), dict) or "num_components" in _signature(head):
        # The components of a mixture have no order, by which their parameters could be named.
        return [ETA]
    built = _built(head)
    return [*built.eta_names, *built.shared_names]


def _built(head: Node) -> Any:
    """The head of some settings, whose parameters have names that depend on these."""
    from mlefw.configuration.instantiate import instantiate

    return instantiate("head", head)


def _kind(head: Node) -> Any:
    """The class of a head. It is imported here, so that settings without a formula are read without torch."""
    from mlefw.configuration.instantiate import class_of

    return class_of(admit("head", head))


def _takes_trials(head: Node) -> bool:
    component = head.get("component")
    nodes = [head, component] if isinstance(component, dict) and "_target_" in component else [head]
    return any(getattr(_kind(node), "takes_trials", False) is True for node in nodes)


def _in_formula(head: Node, names: list[str]) -> list[str]:
    """The parameters in the order of the parts of a formula: that of the head, but for its `second_part`."""
    second = getattr(_kind(head), "second_part", None)
    others = [name for name in names if name != second]
    return [*others[:1], second, *others[1:]] if second in names else names


def _signature(head: Node) -> Mapping[str, Any]:
    return inspect.signature(_kind(head)).parameters


def _is_predicted(head: Node, name: str) -> bool:
    """Whether a head predicts a parameter by its settings."""
    known = _signature(head)
    if name in known:
        return bool(head.get(name, known[name].default) == "predicted")
    component = head.get("component")
    if isinstance(component, dict) and "_target_" in component and name in parameters(component):
        return _is_predicted(component, name)
    # What no setting can make shared or a number is predicted.
    return True


def _set_source(head: Node, name: str, source: str) -> bool:
    """Set where a parameter comes from; whether some setting of the head says so."""
    if name in _signature(head):
        head[name] = source
        return True
    component = head.get("component")
    return isinstance(component, dict) and "_target_" in component and _set_source(component, name, source)
