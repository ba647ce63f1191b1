"""Every public function with two or more parameters documents its arguments and what it returns."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "metarec_jax"
EXEMPT_DECORATORS = {"overload", "property", "cached_property", "setter"}
HTTP_METHODS = {"get", "post"}
"""Decorators of routes, whose docstrings are descriptions in the OpenAPI document."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _decorators(function: Function) -> set[str]:
    """Last name of each decorator, e.g. `property` or `setter`."""
    names = set()
    for decorator in function.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        names.add(target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", ""))
    return names


def _public_functions(tree: ast.Module) -> Iterator[tuple[str, Function]]:
    """Public functions of a module, and public methods of its public classes, with their qualified names."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from ((f"{node.name}.{item.name}", item) for item in node.body if isinstance(item, Function))


def _parameter_count(function: Function, is_method: bool) -> int:
    """Number of parameters, without `self` or `cls`."""
    arguments = function.args
    count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    count += (arguments.vararg is not None) + (arguments.kwarg is not None)
    return count - (is_method and "staticmethod" not in _decorators(function))


def _returns_value(function: Function) -> bool:
    """Whether the return annotation is something other than None."""
    returns = function.returns
    if isinstance(returns, ast.Name) and returns.id in ("Never", "NoReturn"):
        return False
    return returns is not None and not (isinstance(returns, ast.Constant) and returns.value is None)


def _missing_sections(function: Function) -> list[str]:
    """Names of the Google-style sections that the docstring of a function lacks."""
    lines = {line.strip() for line in (ast.get_docstring(function) or "").splitlines()}
    missing = [] if "Args:" in lines else ["Args"]
    if _returns_value(function) and not lines & {"Returns:", "Yields:"}:
        missing.append("Returns")
    return missing


def _offenders() -> list[str]:
    """One line for each public function with two or more parameters whose docstring lacks a section."""
    offenders = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, function in _public_functions(ast.parse(path.read_text(encoding="utf-8"))):
            if function.name.startswith("_") or _decorators(function) & (EXEMPT_DECORATORS | HTTP_METHODS):
                continue
            if _parameter_count(function, "." in name) < 2:
                continue
            if missing := _missing_sections(function):
                place = f"{path.relative_to(PACKAGE.parent)}:{function.lineno}"
                offenders.append(f"{place} {name} lacks {' and '.join(missing)}")
    return offenders


def test_public_functions_document_their_arguments_and_what_they_return() -> None:
    offenders = _offenders()
    assert not offenders, "\n".join(offenders)
