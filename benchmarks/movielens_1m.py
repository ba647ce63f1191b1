"""Protocol A at the size of MovieLens-1M, which may not be redistributed: time and memory.

python -m benchmarks.movielens_1m FOLDER               # writes ratings.dat, movies.dat and users.dat of that size
python -m benchmarks.movielens_1m FOLDER --json OUT    # and runs the protocol on them, one seed

The ratings are synthetic, from tastes that are linear in factors, with the numbers of users, films and ratings of the
real data and a similar distribution; the words of titles are those of MovieLens-100K. Time and memory are those to
expect with the real data; accuracy is not meaningful.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import harness
from metarec_jax.config.run import preset
from metarec_jax.core.atomic_files import replacing
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load
from metarec_jax.data.sources.movielens_1m import AGES, OCCUPATIONS

USERS, FILMS, RATED, RATINGS = 6040, 3883, 3706, 1_000_209
"""Sizes of MovieLens-1M, from its README."""
LEAST, MEDIAN, MOST = 20, 96, 2314
"""Least number of ratings of a user."""
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
_FACTORS = 4
_YEARS = 1.0 / 9.0
"""Mean age of a film in years before 2000 (exponential distribution); a tenth are of 1998 or later."""


def activity(rng: np.random.Generator, users: int, most: int, total: int) -> np.ndarray:
    """int [users], number of films that each user rates: log-normal above `LEAST`, about `total` together."""
    drawn = np.exp(rng.normal(0.0, 1.0, users)) * (MEDIAN - LEAST)

    def of(scale: float) -> np.ndarray:
        return np.minimum(LEAST + scale * drawn, most).astype(int)

    low, high = 0.01, 100.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if of(middle).sum() < total else (low, middle)
    return of(high)


def write(folder: Path, users: int = USERS, films: int = FILMS, rated: int = RATED, total: int = RATINGS) -> Path:
    """Write the three files; equal arguments give equal files."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted(
        {word for title in load(preset("movielens-100k").data, seed=0).items.titles for word in title.split()}
    )
    words = [word for word in words if word.isalpha()]
    years = 2000 - np.minimum(rng.exponential(1 / _YEARS, films), 81).astype(int)
    with (folder / "movies.dat").open("w", encoding="latin-1", errors="replace") as out:
        for film, year in enumerate(years, start=1):
            title = " ".join(rng.choice(words, rng.integers(1, 5)))
            out.write(f"{film}::{title} ({year})::{'|'.join(rng.choice(GENRES, rng.integers(1, 4), replace=False))}\n")
    with (folder / "users.dat").open("w", encoding="latin-1") as out:
        for user in range(1, users + 1):
            age, work = rng.choice(list(AGES)), rng.integers(len(OCCUPATIONS))
            out.write(f"{user}::{'FM'[rng.random() < 0.72]}::{age}::{work}::{rng.integers(10000, 99999)}\n")
    popularity = rng.gumbel(size=rated)
    tastes = rng.normal(size=(rated, _FACTORS)) * 0.3
    quality = rng.normal(3.5, 0.5, rated)
    # Written last and atomically: if it exists, nothing is written again.
    with replacing(folder / "ratings.dat") as part, part.open("w", encoding="latin-1") as out:
        for user, count in enumerate(activity(rng, users, min(MOST, rated), total), start=1):
            seen = np.argpartition(-(popularity + rng.gumbel(size=rated)), count - 1)[:count]
            liking = quality[seen] + rng.normal(0, 0.4) + tastes[seen] @ rng.normal(size=_FACTORS)
            stars = np.clip(np.rint(liking + rng.normal(0, 0.8, count)), 1, 5).astype(int)
            start = rng.integers(956_703_932, 1_046_454_590 - 10 * count)
            times = start + np.sort(rng.integers(0, 10 * count, count))
            out.writelines(f"{user}::{film + 1}::{star}::{at}\n" for film, star, at in zip(seen, stars, times))
    return folder


def measure(folder: Path, out: Path, arguments: list[str]) -> list[harness.Row]:
    """Run the protocol once, in a separate process.

    Raises:
        MetarecError: it failed; the message contains its output.
    """
    command = ["evaluate", "--protocol", "melu", "--preset", "movielens-1m", "--data.path", str(folder)]
    command += ["--seeds", "1", "--out", str(out), *arguments]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "metarec_jax", *command], stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise MetarecError(f"the evaluation ended with {done.returncode}: {done.stderr[-2000:]}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    case = "melu, as large as MovieLens-1M, one seed"
    facts = {"users": USERS, "films": FILMS, "ratings": RATINGS, "options": " ".join(arguments)}
    return [
        harness.Row(case, "itself", metric, figure, figure, harness.flat(1.0), facts=facts)
        for metric, figure in (("minutes", seconds / 60), ("peak memory, GiB", peak))
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the three files")
    parser.add_argument("--out", type=Path, default=Path("runs/melu-1m"), help="of the evaluation")
    parser.add_argument("--json", type=Path, help="run the protocol, and write its time and memory here")
    parser.add_argument("options", nargs="*", help="after --: further options of `metarec evaluate`")
    arguments = parser.parse_args()
    try:
        if not (arguments.folder / "ratings.dat").exists():
            print(f"written: {write(arguments.folder)}")
        if arguments.json:
            rows = measure(arguments.folder, arguments.out, arguments.options)
            harness.write(rows, arguments.json)
            harness.show(rows)
    except MetarecError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
