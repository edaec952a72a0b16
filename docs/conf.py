"""Settings of the documentation: `sphinx-build -W -b html docs docs/_build/html`. Building fetches nothing."""

import os
import re
import typing
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.domains.python import PyObject
from sphinx.ext.intersphinx import resolve_reference_any_inventory

typing.GENERATING_DOCUMENTATION = "oscsim"  # then jaxtyping writes Float[Array, "batch neurons"], without modules

import oscsim  # noqa: E402

project = "oscsim"
author = "The oscsim developers"
project_copyright = author
version = release = oscsim.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]

# Where other packages describe the names that oscsim's pages mention. The inventories are short and lie here, so that
# building needs no network; a name that is missing from them is code without a link.
intersphinx_mapping = {
    name: (address, f"inventories/{name}.inv")
    for name, address in {
        "diffrax": "https://docs.kidger.site/diffrax/",
        "equinox": "https://docs.kidger.site/equinox/",
        "jax": "https://docs.jax.dev/en/latest/",
        "matplotlib": "https://matplotlib.org/stable/",
        "numpy": "https://numpy.org/doc/stable/",
        "optax": "https://optax.readthedocs.io/en/latest/",
        "pandas": "https://pandas.pydata.org/docs/",
        "xarray": "https://docs.xarray.dev/en/stable/",
    }.items()
}

myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # the gallery runs when it has changed
nb_execution_excludepatterns = ["notebooks/*"]  # these show the outputs committed in them
nb_execution_raise_on_error = True
nb_execution_timeout = 600
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # of programs that run once
copybutton_exclude = ".linenos, .gp, .go"  # the prompt and the output of an example
nb_code_prompt_show = "Show the solution"  # the cells that are hidden are solutions of exercises
nb_code_prompt_hide = "Hide the solution"

default_role = "py:obj"  # a name in backticks is a link where it is documented, and code elsewhere
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
autodoc_inherit_docstrings = False  # a method is described where it is abstract
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True  # attributes as a list, not one entry each
napoleon_attr_annotations = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"oscsim {release}"
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["oscsim.css"]


# Sphinx reads what lies below this folder, and the notebooks lie beside it. The players of their animations ask for a
# font of icons from the network: docs/_static/oscsim.css has characters in their place.

DOCS = Path(__file__).parent
(DOCS / "notebooks").mkdir(exist_ok=True)
for notebook in (DOCS.parent / "notebooks").glob("*.ipynb"):
    text = notebook.read_text("utf-8").replace("](../docs/", "](../")
    text = re.sub(r'https:[^"]+/font-awesome[^"]+\.css', "data:text/css,", text)
    copy = DOCS / "notebooks" / notebook.name
    if not copy.exists() or copy.read_text("utf-8") != text:
        copy.write_text(text, "utf-8")


# Docstrings are written to be read in an editor: Google's sections, with formulas and tables as in Markdown. Sphinx
# takes reStructuredText, so these are rewritten on their way there.


def as_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite formulas as math, tables as list-tables, and names that share a description as one entry each."""
    text = re.sub(r"(?ms)^( *)\$\$(.+?)\$\$", lambda m: f"{m[1]}.. math:: {' '.join(m[2].split())}", "\n".join(lines))
    text = re.sub(r"\$([^$]+)\$", lambda m: f":math:`{' '.join(m[1].split())}`", text)
    text = re.sub(r"(:math:)?(`[^`]+`)(\w)?", role, text)
    text = re.sub(r"(?m)(?:^ *\|.*\|$\n?)+", list_table, text)
    text = re.sub(r"(?m)^( +)(\w+(?:, \w+)+):( .*(?:\n\1 .*)*)", separate, text)
    lines[:] = text.split("\n")
    if what in ("property", "attribute", "data"):
        lines[:0] = ["..", ""]  # else napoleon takes a first line up to its colon for the type


def role(name: re.Match) -> str:
    """A formula or a name, set off from a letter that follows; angle brackets in a name are no target of a link."""
    text = f"`{name[2]}`" if "<" in name[2] and not name[1] else name[2]
    return (name[1] or "") + text + (f"\\ {name[3]}" if name[3] else "")


def list_table(table: re.Match) -> str:
    """A Markdown table as the directive `list-table`."""
    rows = table[0].splitlines()
    indent = rows[0][: rows[0].index("|")]
    head, _, *body = ([cell.strip() for cell in row.strip(" |").split(" | ")] for row in rows)
    cells = [f"   {'  ' if i else '* '}- {cell}" for row in (head, *body) for i, cell in enumerate(row)]
    return "\n".join(indent + line for line in (".. list-table::", "   :header-rows: 1", "", *cells)) + "\n\n"


def separate(entry: re.Match) -> str:
    """An entry `a, b: text` as one entry for each name."""
    return "\n".join(f"{entry[1]}{name}:{entry[3]}" for name in entry[2].split(", "))


def drop_any(app: Any, domain: str, what: str, content: nodes.Element) -> None:
    """Leave out the type Any, which says nothing."""
    for field in list(content.findall(nodes.field)):
        kind = field[0].astext().split()[0]
        if kind in ("type", "rtype") and field[1].astext().split(".")[-1] in ("Any", "None"):
            field.parent.remove(field)


KINDS = {"Bool": "boolean", "Complex": "complex", "Float": "real", "Inexact": "real or complex", "Int": "integer"}
KINDS |= {"Key": "key", "Real": "real"}  # of arrays, as jaxtyping calls them, and as people do


def describe_types(app: Any, domain: str, what: str, content: nodes.Element) -> None:
    """Write the types of arguments for people: `Float[Array, 'batch neurons']` is a real array (batch, neurons)."""
    for annotations in app.env.current_document.autodoc_annotations.values():
        for name, annotation in annotations.items():
            annotations[name] = re.sub(r"\b([A-Z][a-z]+)\[(?:\w+\.)*(?:Array|ndarray), '(.*?)'\]", array, annotation)


def array(annotation: re.Match) -> str:
    """An array by its kind of numbers and its shape."""
    kind, shape = KINDS.get(annotation[1], annotation[1]), ", ".join(annotation[2].split())
    if kind == "key":
        return "jax.random.key"
    return f"{kind} array ({shape})" if shape else f"{kind} scalar"


def no_field_numbers(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what Python says of the fields of a named tuple: a number."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


PUBLISHED = {"Array": "jax.Array", "matplotlib.axes._axes.Axes": "matplotlib.axes.Axes"}


def public_name(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Look a name up as a public one of the package, and a type of another by its public name, not by its file."""
    if node.get("refdomain") != "py":
        return None
    target = PUBLISHED.get(node["reftarget"], node["reftarget"])
    package, _, rest = target.partition(".")
    name = target.rpartition(".")[2]
    if package in intersphinx_mapping:
        if re.match(r"_|core\.", rest):
            target = f"{package}.{name}"
        node["reftarget"] = target
        return resolve_reference_any_inventory(env, True, node, text)
    places = (
        [f"oscsim.{target}"] if package != "oscsim" else [f"oscsim.{name}", f"oscsim.{rest.partition('.')[0]}.{name}"]
    )
    found = (env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", it, node, text) for it in places)
    return next(filter(None, found), None)


# Formulas become MathML, which browsers draw without a script: the pages need no network.


def mathml(tex: str, display: str) -> str:
    """The formula as MathML, with spacing closer to that of TeX than the converter's own."""
    tex = tex.replace("'", "′").replace("{aligned}", "{align*}")
    found = convert(re.sub(r"\\[bB]ig+([lr])", lambda m: {"l": r"\left", "r": r"\right"}[m[1]], tex), display=display)
    found = re.sub(r"(&#x(?:0003D|0002C|00028);</mo>)<mo>&#x02212;", r'\1<mo form="prefix">&#x02212;', found)
    return re.sub(
        r'<mo(?: stretchy="false")?>(?=&#x000(?:2F|7C);)', '<mo stretchy="false" lspace="0" rspace="0">', found
    )


def inline(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", no_field_numbers)
    app.connect("object-description-transform", describe_types, priority=400)  # before the types are put in
    app.connect("object-description-transform", drop_any, priority=900)  # after the types were put in
    app.connect("missing-reference", public_name, priority=400)  # before intersphinx
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
