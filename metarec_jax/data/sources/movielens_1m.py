"""MovieLens-1M and -10M as GroupLens publishes them: ratings.dat, movies.dat and (1M, if it is there) users.dat.

Layout, age groups and occupations: https://files.grouplens.org/datasets/movielens/ml-1m-README.txt; of 10M, which has
half stars and no users: https://files.grouplens.org/datasets/movielens/ml-10m-README.html
"""

from __future__ import annotations

import pyarrow as pa

from metarec_jax.core.scale import STARS
from metarec_jax.core.types import Interactions
from metarec_jax.data.interactions import build
from metarec_jax.data.sources.find import Release
from metarec_jax.data.sources.folder import Folder
from metarec_jax.data.sources.movielens import CITATION, HALF_STARS, LICENCE, PUBLISHER, profiles, rated_films
from metarec_jax.data.sources.source import register_layout
from metarec_jax.data.sources.text import read_text
from metarec_jax.data.text import profile_text
from metarec_jax.data.values import Table

# By the code in the file, which is the least age of a group.
AGES = {
    "1": "under 18",
    "18": "18 to 24",
    "25": "25 to 34",
    "35": "35 to 44",
    "45": "45 to 49",
    "50": "50 to 55",
    "56": "56 or over",
}
# The code in the file is the position in this list.
OCCUPATIONS = (
    "other",
    "academic or educator",
    "artist",
    "clerk or administrator",
    "college or graduate student",
    "customer service",
    "doctor or health care worker",
    "executive or manager",
    "farmer",
    "homemaker",
    "school student",
    "lawyer",
    "programmer",
    "retired",
    "sales or marketing",
    "scientist",
    "self-employed",
    "technician or engineer",
    "tradesman or craftsman",
    "unemployed",
    "writer",
)

RELEASE = Release(f"{PUBLISHER}/ml-1m.zip", stems=("ml-1m",), md5="c4d9eecfca2ab87c1945afe126590906")


@register_layout(
    "movielens-1m",
    title="MovieLens-1M",
    marks=("ratings.dat",),
    release=RELEASE,
    licence=LICENCE.replace("ml-100k-README.txt", "ml-1m-README.txt"),
)
def read(folder: Folder, *, source: str) -> Interactions:
    """Read MovieLens-1M or -10M.

    Args:
        folder: the files.
        source: value of `Interactions.source`.

    Returns:
        The data set.
    """
    ratings, items = rated_films(folder, numeric=True, latin1=True)
    users = None
    if "users.dat" in folder:
        names = ("user", "gender", "age", "occupation", "zip code")
        table = read_text(folder.read("users.dat"), {n: n for n in names[:4]}, separator="::", names=names, latin1=True)
        users = profiles(table, coded_profile)
    return build(
        ratings,
        items=items,
        users=users,
        scale=STARS if users or _all_whole(ratings) else HALF_STARS,
        source=source,
        citation=CITATION,
    )


def _all_whole(ratings: Table) -> bool:
    stars = ratings.columns["rating"]
    return not pa.types.is_floating(stars.type) or bool((stars.to_numpy() % 1 == 0).all())


def coded_profile(age: str, gender: str, occupation: str) -> str:
    """The profile of a user from MovieLens-1M's codes of age group and occupation.

    Args:
        age: code of the age group.
        gender: "M" or "F".
        occupation: code of the occupation.

    Returns:
        The text.

    Example:
        >>> coded_profile("25", "M", "12")
        'A man aged 25 to 34, programmer.'
    """
    known = occupation.isdecimal() and int(occupation) < len(OCCUPATIONS)
    return profile_text(AGES.get(age, ""), gender, OCCUPATIONS[int(occupation)] if known else "")
