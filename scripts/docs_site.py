"""A hook of mkdocs: formulas become MathML, which browsers draw by themselves, and the notebook becomes a page."""

import re
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

NOTEBOOK = "tutorial"
CODE = r"^```(?!math)[^\n]*\n.*?^```$|`[^`\n]+`"
FORMULA = re.compile(
    rf"(?P<code>{CODE})|^```math\n(?P<block>.*?)^```$|(?<![\\\w$])\$(?P<inline>[^$\n]+)\$", re.M | re.S
)
_GAP = '<mspace width="0.17em" />'
_formulas: dict[str, str] = {}


def on_files(files: Files, config: Any) -> Files:
    """Add the page of the notebook; the notebook itself stays a file to download."""
    source = Path(config.docs_dir) / f"{NOTEBOOK}.ipynb"
    link = f'<a href="{source.name}" download>{source.name}</a>'
    content = page(nbformat.read(source, as_version=4)).replace(f"`docs/{source.name}`", link)
    files.append(File.generated(config, f"{NOTEBOOK}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put placeholders in place of formulas, in which Markdown would see signs of its own; link the notebook's page."""
    return FORMULA.sub(_kept, markdown).replace(f"({NOTEBOOK}.ipynb)", f"({NOTEBOOK}.md)")


def on_page_content(html: str, **_: Any) -> str:
    """Put the formulas in."""
    html = re.sub(r"<p>(FORMULA\d+Q)</p>", r'<div class="formula">\1</div>', html)
    return re.sub(r"FORMULA\d+Q", lambda found: _formulas[found[0]], html)


def page(notebook: Any) -> str:
    """A notebook as Markdown: code and text as they are, results as HTML, pictures inside of the page."""
    return "\n\n".join(
        cell.source if cell.cell_type == "markdown" else "\n\n".join([f"```python\n{cell.source}\n```", *results(cell)])
        for cell in notebook.cells
    )


def results(cell: Any) -> list[str]:
    """The results of a cell, each in the richest form that it has; of an emptied line of progress none."""
    found = []
    for output in cell.outputs:
        data = output.get("data", {})
        html, text = data.get("text/html", ""), output.get("text", data.get("text/plain", ""))
        if "image/png" in data:
            content = data["image/png"].replace("\n", "")
            found.append(f'<p><img src="data:image/png;base64,{content}" alt="The picture that the cell draws"></p>')
        elif html:
            # Markdown ends a block of HTML at an empty line.
            whole = re.sub(r"\n\s*\n", "\n", html)
            found.append(f'<div class="result">{whole}</div>')
        elif text:
            found.append(f'<pre class="result">{escape(text)}</pre>')
    return found


def _kept(found: re.Match[str]) -> str:
    if found["code"]:
        return found[0]
    is_block = found["block"] is not None
    name = f"FORMULA{len(_formulas)}Q"
    # In a table a vertical bar would end the cell, so sources write \vert, \mid or \lvert.
    drawn = convert((found["block"] or found["inline"]).strip(), display="block" if is_block else "inline")
    # A function's name stands apart from what it is of, unless that is in parentheses.
    _formulas[name] = re.sub(r'(<mi>(?:log|max|min)</mi>)(?!<mo stretchy="false">&#x00028;)', rf"\1{_GAP}", drawn)
    return name
