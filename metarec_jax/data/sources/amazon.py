"""Amazon reviews of 2014, 2018 and 2023, of one or more categories.

Layouts: https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/, https://jmcauley.ucsd.edu/data/amazon/ and
https://amazon-reviews-2023.github.io/

The file of ratings alone of 2014 (ratings_*.csv) begins with the user, that of 2018 (NAME.csv) with the item; that of
2023 has a header.
"""

from __future__ import annotations

from metarec_jax.core.scale import STARS, Kind
from metarec_jax.core.types import Interactions
from metarec_jax.data.repeats import Rule
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.published import Form, Published
from metarec_jax.data.sources.published import read as read_published
from metarec_jax.data.sources.source import register_layout

_JSON = ("*.json", "*.json.gz", "*.jsonl", "*.jsonl.gz")
_META = ("meta_*.json", "meta_*.json.gz", "meta_*.jsonl", "meta_*.jsonl.gz")
_CSV = ("*.csv", "*.csv.gz")
_BY_YEAR = {"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"}
_2023 = {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"}
_NAMES = {"user": "user", "item": "item", "rating": "rating", "time": "timestamp"}

DATA = Published(
    interactions=(
        Form(_JSON, _2023),
        Form(_JSON, _BY_YEAR),
        Form(_CSV, _2023, separator=",", quoted=True),
        Form(_CSV, _NAMES, separator=",", quoted=True),
        Form(("ratings_*.csv",), _NAMES, separator=",", header=("user", "item", "rating", "timestamp")),
        Form(_CSV, _NAMES, separator=",", header=("item", "user", "rating", "timestamp")),
    ),
    items=(
        Form(
            _META,
            {
                "item": "parent_asin",
                "title": "title",
                "features": "features",
                "description": "description",
                "category": "categories",
                "brand": "store",
            },
            text=("features", "description"),
        ),
        Form(
            _META,
            {"item": "asin", "title": "title", "description": "description", "category": "category", "brand": "brand"},
            text=("description",),
        ),
        Form(
            _META,
            {
                "item": "asin",
                "title": "title",
                "description": "description",
                "category": "categories",
                "brand": "brand",
            },
            text=("description",),
        ),
    ),
    scale=STARS,
    repeats="latest",
    citation=(
        "Yupeng Hou, Jiacheng Li, Zhankui He, An Yan, Xiusi Chen and Julian McAuley. 2024. Bridging Language and Items "
        "for Retrieval and Recommendation. arXiv:2403.03952 (2023); Jianmo Ni, Jiacheng Li and Julian McAuley. 2019. "
        "Justifying Recommendations using Distantly-Labeled Reviews and Fine-Grained Aspects. EMNLP (2014, 2018)"
    ),
)


@register_layout(
    "amazon",
    title="Amazon reviews",
    marks=(*_META, "reviews_*.json", "reviews_*.json.gz"),
    options=("kind", "repeats"),
    licence="the publishers name none that is known here: see their pages (https://amazon-reviews-2023.github.io/, "
    "https://cseweb.ucsd.edu/~jmcauley/datasets/amazon_v2/)",
)
def read(folder: Folder, *, source: str, kind: Kind, repeats: Rule) -> Interactions:
    """Read Amazon reviews.

    Args:
        folder: the files.
        source: value of `Interactions.source`.
        kind: "rating", or "click" to make every review a click.
        repeats: rule of reviews of the same user and item; "auto" takes the latest.

    Returns:
        The data set.
    """
    return read_published(DATA, folder, source, kind, repeats)
