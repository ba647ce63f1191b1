"""The Python code of every page of the documentation runs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import random_interactions

import metarec_jax as mr

DOCS = Path(__file__).parents[1] / "docs"
OF_OTHER_TESTS = {
    "adapting-the-encoder": "tests/test_docs.py",
    "engine": "tests/test_docs.py",
    "updaters": "tests/test_docs.py",
    "extending": "tests/cli/test_plugin.py",
}
"""Pages whose code other tests run, and where."""


def blocks(page: str) -> list[str]:
    """The blocks of Python of a page."""
    return re.findall(r"^```python\n(.*?)^```", (DOCS / f"{page}.md").read_text(encoding="utf-8"), re.DOTALL | re.M)


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A run on MovieLens-100K, whose titles the pages name."""
    config = mr.preset("movielens-100k")
    folder = tmp_path_factory.mktemp("films") / "run"
    mr.meta_train(
        dataclasses.replace(
            config,
            factors=dataclasses.replace(config.factors, rank=2),
            episodes=dataclasses.replace(config.episodes, buckets=(16,)),
            updater=dataclasses.replace(config.updater, steps=1, order="first"),
            train=dataclasses.replace(config.train, epochs=1, devices=1),
        ),
        folder,
    )
    return folder


def run(block: str, folder: Path, **names: object) -> dict[str, object]:
    """Execute a block, in which the run "runs/mine" and `folder` are the one that is given."""
    found = {"folder": folder, "Recommender": mr.Recommender, **names}
    exec(block.replace('"runs/mine"', repr(str(folder))), found)
    return found


def test_every_page_with_code_is_run():
    here = {"start", "clicks", "new-items", "data", "batch", "explanations", "interview", "retrieval", "serving"}
    pages = {path.stem for path in DOCS.glob("*.md") if blocks(path.stem)}
    assert pages == here | set(OF_OTHER_TESTS)


@pytest.mark.parametrize("page", ["start", "clicks", "new-items"])
def test_a_page_that_makes_its_data_up(page, capsys):
    (block,) = blocks(page)
    exec(block, {})
    assert len(capsys.readouterr().out.splitlines()) >= 2


@pytest.mark.parametrize(
    "page", [pytest.param("explanations", marks=pytest.mark.slow), "interview", "retrieval", "serving"]
)
def test_a_page_about_films(page, films):
    found = run(blocks(page)[0], films, recommender=mr.Recommender.load(films))
    if page == "explanations":
        assert found["why"].words


def test_the_page_of_indexes(films):
    pytest.importorskip("usearch")
    run(blocks("retrieval")[1], films, recommender=mr.Recommender.load(films))


def test_the_page_of_batches(films):
    """Its second block needs a cluster: tests/recommender/test_ray_jobs.py has one."""
    first, _ = blocks("batch")
    assert run(first, films, recommender=mr.Recommender.load(films))["table"].num_rows == 30


@pytest.mark.slow
def test_the_page_of_data(tmp_path):
    made = random_interactions(np.random.default_rng(0), users=60, items=40, least=14, most=20)
    ratings = pa.table({"who": made.user, "book": made.item, "stars": made.rating, "when": made.time})
    books = pa.table({"book": range(40), "title": [f"Book {n}" for n in range(40)]})
    (block,) = blocks("data")
    found: dict = {"ratings": ratings, "books": books}
    exec(block.replace("movielens-100k", "synthetic").replace("runs/books", str(tmp_path / "books")), found)
    assert found["data"].items.titles[0] == "Book 0"
