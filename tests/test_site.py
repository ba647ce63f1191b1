"""The site of the documentation is built without a warning, documents every public name, and needs no other host."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import metarec_jax.meta

ROOT = Path(__file__).parents[1]
LOADS = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["'](?:https?:)?//[^"']+""")
"""A script, style, font or picture of another host; links that a reader may follow are none."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("site")
    # The notebooks are not executed: tests/test_notebooks.py does that.
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-E", "-d", str(out / "trees")]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    made = subprocess.run(
        [*command, "docs", str(out / "html")], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return out / "html"


def test_every_page_is_reached_from_the_first(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    pages = {str(path.relative_to(ROOT / "docs").with_suffix(".html")) for path in (ROOT / "docs").rglob("*.md")}
    pages = {page for page in pages if not page.startswith("_")}
    assert {page for page in pages - {"index.html"} if f'href="{page}"' not in index} == set()


@pytest.mark.parametrize(("package", "page"), [(metarec_jax, "python"), (metarec_jax.meta, "engine")])
def test_every_public_name_is_documented(site, package, page):
    page = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
    undocumented = []
    for name in package.__all__:
        found = getattr(package, name)
        if f'id="{name.lower().replace("_", "-")}"' not in page:
            undocumented.append(name)
        members = {name: found}
        if inspect.isclass(found):
            own = {f"{name}.{member}": value for member, value in vars(found).items() if not member.startswith("_")}
            members |= {
                full: value
                for full, value in own.items()
                if inspect.isfunction(value) or inspect.isdatadescriptor(value)
            }
        undocumented += [full for full, value in members.items() if callable(value) and not inspect.getdoc(value)]
    assert undocumented == []


def test_nothing_is_loaded_from_another_host(site):
    pages = {page: LOADS.findall(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert {page.name: found for page, found in pages.items() if found} == {}
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]+", styles) == []
    assert "<math" in (site / "gram-space.html").read_text(encoding="utf-8"), "formulas need no script"


def test_the_search_finds_words_of_pages(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "bootstrap" in index
    assert "gram-space" in index
