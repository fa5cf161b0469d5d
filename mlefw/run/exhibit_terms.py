"""The pictures of the terms of formulas: curves with bands, levels, and effects of groups."""

import re

import torch

from mlefw.baseline.base import Solution
from mlefw.baseline.coefficients import link_of
from mlefw.baseline.covariance import Covariance, covariance
from mlefw.baseline.linear import StandardErrors
from mlefw.head.base import Head
from mlefw.objective.linear_terms import TermsModel
from mlefw.objective.objective import Objective
from mlefw.plot.style import png
from mlefw.plot.terms import group_effects, term_effects
from mlefw.report.page import Picture
from mlefw.report.term_effects import group_panels, term_panels
from mlefw.rows.dependence import Dependence
from mlefw.schema.kinds import RowSchema
from mlefw.schema.schema import Schema

TERMS = "What each term of the formula adds, with 95 % bands; marks at the lower edge are values of training rows."
TRAINED = "Dashed lines and crosses: the trained model."
GROUPS = "Predicted effects of groups in order of their size, with 95 % intervals."


def of_terms(
    solution: object,
    schema: RowSchema,
    kind: StandardErrors,
    dependence: Dependence,
    objective: Objective | None = None,
) -> list[tuple[str, Picture]]:
    """The pictures of the terms of an exact estimate, with the names of their files; none without formulas.

    Args:
        solution: the estimate; without one, or where it does not exist, there are no pictures.
        schema: the meaning of the columns.
        kind: kind of standard errors.
        dependence: clusters and times of the training rows.
        objective: a trained model, whose linear terms are shown beside those of the estimate.
    """
    if not isinstance(schema, Schema) or schema.design is None:
        return []
    if not isinstance(solution, Solution) or not solution.may_exist:
        return []
    found = covariance(solution, kind, dependence)
    errors = found if isinstance(found, Covariance) else None
    how = "without bands" if errors is None else f"95 % bands: {errors.kind}"
    head, pictures = solution.problem.head, []
    trained = None if objective is None else _trained(objective)
    how += "" if trained is None else "; dashed: the trained model"
    for parameter, panels in term_panels(solution, schema, errors, trained).items():
        if panels:
            figure = term_effects(panels, parameter, _scale(head, parameter), how)
            pictures.append((f"terms_{_plain(parameter)}", figure, TERMS if trained is None else f"{TERMS} {TRAINED}"))
    for parameter, effects in group_panels(solution, schema, errors).items():
        figure = group_effects(effects, parameter, _scale(head, parameter))
        pictures.append((f"groups_{_plain(parameter)}", figure, GROUPS))
    return [
        (name, Picture(png(one), one.get_suptitle().replace("\n", " ").replace(r"\$", "$"), caption))
        for name, one, caption in pictures
    ]


@torch.no_grad()
def _trained(objective: Objective) -> torch.Tensor | None:
    """The linear coefficients of a trained model, (eta_dim, num_features), NaN in rows of columns of the network."""
    model = objective.model.model
    if not isinstance(model, TermsModel):
        return None
    table = model.table()[:, :-1].detach().clone()
    table[list(model.owned)] = float("nan")
    return table


def _scale(head: Head, parameter: str) -> str:
    """What terms of a parameter add up to, in words: `loc`, `log of rate`, `log-odds`."""
    link = link_of(head, parameter)
    if parameter in ("logit", "logits"):
        return "log-odds" if link == "logit" else link
    return parameter if link == "identity" else f"{link} of {parameter}"


def _plain(parameter: str) -> str:
    return re.sub(r"\W", "_", parameter)
