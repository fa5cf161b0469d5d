"""mlefw baseline: only the exact estimate, as a table of coefficients."""

from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from mlefw import console
from mlefw.atomic import write_json
from mlefw.command.train import baseline_file
from mlefw.errors import UsageError
from mlefw.preparation import estimate, prepare
from mlefw.run_directory import claim


def run(config: dict[str, Any], run_dir: Path) -> dict[str, Any]:
    """Solve, write `baseline.json`, and return its content.

    Raises:
        UsageError: before anything is written.
    """
    if not (config["baseline"] or {}).get("_target_"):
        raise UsageError("baseline=none: there is nothing to estimate; expected baseline=linear")
    prepared = prepare(config, run_dir)
    content = baseline_file(config, prepared, estimate(config, prepared))
    write_json(claim(run_dir) / "baseline.json", content)
    return content


def show(content: dict[str, Any], out: Console) -> None:
    """Print the estimate as a person reads it."""
    name = "MLE" if content["prior"] == "none" else "MAP"
    title = f"Exact linear {name}: head={content['head']} prior={content['prior']}"
    out.print(Text(title, style="bold"))
    if not content["exists"]:
        out.print(Text(f"no finite estimate: {content['reason']}"))
        if "nll_infimum" in content:
            out.print(f"infimum of the NLL: {content['nll_infimum']:.6f} nats per row")
        return
    parts = [f"{content['num_rows']} rows", f"log-likelihood {content['log_likelihood']:.4f}"]
    parts += [f"NLL {content['nll_nats']:.6f} nats per row"]
    parts += [f"{name.upper()} {content[name]:.2f}" for name in ("aic", "bic") if name in content]
    out.print("  ".join(parts))
    sure = "stationary" if content["converged"] else "NOT converged"
    kind = "global optimum" if content["is_global"] else "local optimum"
    out.print(f"{content['solver']}, {content['num_steps']} steps: {sure} ({kind}), residual {content['residual']:.1e}")
    statistic = "t" if "t quantiles" in content["standard_errors"] else "z"
    tables = [console.coefficient_table(name, rows, statistic) for name, rows in content["coefficients"].items()]
    out.print(Group(*tables))
    out.print(f"standard errors: {content['standard_errors']}")
    if content["dropped"]:
        out.print(Text(f"left out (constant or collinear): {', '.join(content['dropped'])}"))
