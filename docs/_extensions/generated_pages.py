"""Pages of the site that are generated: the reference of the package, and the notebooks as tutorials.

They are written into `docs/reference` and `docs/tutorials` before Sphinx looks for pages, and are not committed. Pages
that are written by hand end in .md, these in .myst.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx

import metarec_jax.meta

DOCS = Path(__file__).parents[1]
NOTEBOOKS = DOCS.parent / "notebooks"
METHODS = ("post", "get", "put", "delete")


def python_api() -> str:
    """The page of the names of the package."""
    return _api(metarec_jax, "Python", "`import metarec_jax as mr` imports each when it is first used.")


def engine_api() -> str:
    """The page of the names of the engine."""
    return _api(
        metarec_jax.meta, "Engine", "`from metarec_jax import meta`; [the engine](../engine.md) shows their use."
    )


def _api(package: ModuleType, title: str, about: str) -> str:
    """All public names of a package, functions before classes."""
    stub = ast.parse(Path(str(package.__file__)).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    homes = {name.name: f"{package.__name__}.{line.module}" for line in imports for name in line.names}
    lines = [f"# {title}", "", f"All public names of `{package.__name__}`. {about}", ""]
    for name in sorted(package.__all__, key=lambda name: (inspect.isclass(getattr(package, name)), name.lower())):
        found = getattr(package, name)
        if inspect.isclass(found):
            directive = "autoexception" if issubclass(found, Exception) else "autoclass"
            options = ["   :members:"] if directive == "autoclass" else []
        elif callable(found):
            directive, options = "autofunction", []
        else:
            directive, options = "autodata", ["   :no-value:"]
        lines += [f"## {name}", "", "```{eval-rst}", f".. {directive}:: {homes[name]}.{name}", *options, "```", ""]
    return "\n".join(lines)


def options() -> str:
    """The page of all options of trainings, with their defaults."""
    from metarec_jax.config.run import Config
    from metarec_jax.core.kinds import LEARNERS, UPDATERS

    lines = [
        "# Options",
        "",
        "Every option of `metarec train`, which `Config` holds. `metarec train --help` prints the same. In a Python",
        "name, `-` is `_`; an option that is true or false is switched off by `--section.no-name`.",
        "",
    ]
    for section, config in _sections(Config(), ""):
        own: list[tuple[str, Any, str]] = _fields(config)
        lines += _table(section or "seed", section, own)
        if section in ("learner", "updater"):
            known = {name for name, _, _ in own}
            registry = LEARNERS if section == "learner" else UPDATERS
            for kind in registry.names():
                more = [row for row in _fields(registry.get(kind)()) if row[0] not in known]
                if more:
                    lines += _table(f"{section}.kind {kind}", section, more)
    return "\n".join(lines)


def _sections(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    yield prefix, config
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _sections(value, f"{prefix}.{field.name}".lstrip("."))


def _fields(config: Any) -> list[tuple[str, Any, str]]:
    """Name, default and docstring of each option of a dataclass, without its sections."""
    said: dict[str, str] = {}
    for kind in reversed(type(config).__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
        for before, after in itertools.pairwise(body):
            if isinstance(before, ast.AnnAssign) and isinstance(after, ast.Expr):
                said[before.target.id] = ast.literal_eval(after.value)  # type: ignore[union-attr]
    fields = ((field.name, getattr(config, field.name)) for field in dataclasses.fields(config))
    return [(name, value, said.get(name, "")) for name, value in fields if not dataclasses.is_dataclass(value)]


def _table(title: str, section: str, rows: list[tuple[str, Any, str]]) -> list[str]:
    lines = [f"## {title}", "", "| option | default | |", "|---|---|---|"]
    for name, value, said in rows:
        option = f"{section}.{name}".lstrip(".").replace("_", "-")
        default = " ".join(map(str, value)) if isinstance(value, tuple) else value
        text = " ".join(said.split()).replace("|", "\\|")
        lines.append(f"| `--{option}` | {'' if default == '' else f'`{default}`'} | {text} |")
    return [*lines, ""]


def http() -> str:
    """The page of the service's routes, from its OpenAPI document."""
    from fastapi import FastAPI

    from metarec_jax.serving.app import ROUTERS

    app = FastAPI(title="metarec")
    for router in ROUTERS:
        app.include_router(router)
    document = app.openapi()
    schemas = document["components"]["schemas"]
    lines = ["# HTTP", "", "Routes of `metarec serve`; a running service has the same as `/openapi.json`.", ""]
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                lines += _route(f"{method.upper()} {path}", methods[method])
    lines += ["## Bodies", ""]
    for name, schema in schemas.items():
        if "properties" in schema and not name.endswith("ValidationError"):
            lines += [f"### {name}", "", *_paragraph(schema.get("description", ""))]
            required = schema.get("required", ())
            lines += ["| field | type | |", "|---|---|---|"]
            for field, about in schema["properties"].items():
                need = "" if field in required else "optional. "
                text = " ".join(str(about.get("description", "")).split()).replace("|", "\\|")
                lines.append(f"| `{field}` | {_type(about)} | {need}{text} |")
            lines.append("")
    return "\n".join(lines)


def _route(title: str, about: dict[str, Any]) -> list[str]:
    lines = [f"## `{title}`", "", *_paragraph(about.get("description", about.get("summary", "")))]
    rows = [(p["name"], p["in"], _type(p["schema"]), p.get("description", "")) for p in about.get("parameters", ())]
    if rows:
        lines += ["| parameter | in | type | |", "|---|---|---|---|"]
        lines += [f"| `{name}` | {place} | {kind} | {' '.join(said.split())} |" for name, place, kind, said in rows]
        lines.append("")
    content = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if content:
        lines += [f"Body: {_type(content)}.", ""]
    answers = about["responses"].get("200", {}).get("content", {}).get("application/json", {}).get("schema")
    if answers and (kind := _type(answers)):
        lines += [f"Answer: {kind}.", ""]
    return lines


def _type(schema: dict[str, Any]) -> str:
    """A type of JSON Schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", ""))


def _paragraph(text: str) -> list[str]:
    """A docstring as a paragraph of Markdown."""
    found = inspect.cleandoc(text).split("\n\nArgs:")[0].replace("``", "`")
    return [found, ""] if found else []


def write(app: Sphinx) -> None:
    """Write the pages that have changed."""
    for folder in ("reference", "tutorials"):
        (DOCS / folder).mkdir(exist_ok=True)
    for name, page in {"python": python_api, "engine": engine_api, "options": options, "http": http}.items():
        path = DOCS / "reference" / f"{name}.myst"
        text = page() + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for notebook in sorted(NOTEBOOKS.glob("*.ipynb")):
        copied = DOCS / "tutorials" / notebook.name
        if not copied.exists() or copied.read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, copied)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write)
    return {"version": "1", "parallel_read_safe": True}
