"""`metarec recommend`: adapt a run to the ratings of one user, or of all users of a file, and recommend."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from metarec_jax.cli.arguments import (
    ItemCount,
    Json,
    Ratings,
    TrainedRun,
    check_range,
    parse,
    place,
    prepare,
    print_json,
)
from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.console import print_grid
from metarec_jax.core.errors import MetarecError

if TYPE_CHECKING:
    from metarec_jax.recommender.attribution import Explanation
    from metarec_jax.recommender.batch_parts import Part, Result
    from metarec_jax.recommender.recommender import Recommender


@dataclasses.dataclass(frozen=True)
class EncoderPlace:
    """Where the encoder is."""

    path: str = ""
    """Folder of the run's encoder, if it has moved; "" is where the run's config says."""


@dataclasses.dataclass(frozen=True)
class UsersFormat:
    """Format of the file of --users, with the option names of `metarec train`; defaults are the options of the run."""

    columns: Columns = dataclasses.field(default_factory=Columns)
    separator: str = ""
    """Separator of values in a text table: characters, or "tab", "space"; "" detects it."""
    header: Literal["auto", "yes", "no"] = "auto"
    """Whether the first line of a text table names the columns."""
    quoting: Literal["auto", "double", "none"] = "auto"
    """Whether values of a text table may be enclosed in double quotes."""
    escape: Literal["auto", "backslash", "none"] = "auto"
    """Whether a backslash escapes a quote in a quoted value."""
    encoding: str = "auto"
    """Encoding of a text table, such as latin-1."""
    decimal: Literal["auto", ".", ","] = "auto"
    """Decimal sign of numbers in a text table."""
    repeats: Literal["auto", "refuse", "latest", "first", "mean", "sum"] = "auto"
    """What becomes of rows with the same user and item."""


@dataclasses.dataclass(frozen=True)
class RecommendArguments:
    """Adapt a trained run to one user's ratings, and recommend.

    Titles are matched without regard to case, accents, punctuation, articles and a missing year; "id:50" names an item
    by its id. Without --rate, the list is that of a user without any rating.
    """

    run: TrainedRun
    rate: Ratings = ()
    """A rating of the user (for clicks, =1), oldest rating first."""
    k: ItemCount = 10
    """Number of items."""
    profile: str = ""
    """Text about the user, for a run with --learner.user-side profile."""
    item_text: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TEXT")] = ()
    """Score an item that is not in the catalogue from its text."""
    include_seen: tyro.conf.FlagCreatePairsOff[bool] = False
    """Recommend items that the user has rated, too."""
    users: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Recommend to every user of a file; needs --out. The file has one user in each row with a history (JSON lines,
    Parquet), one rating in each row (any table), or ids of users of the run's data (docs/batch.md)."""
    part: Annotated[str, tyro.conf.arg(metavar="I/N")] = ""
    """Recommend to the users of part I of N, 1/N to N/N; every part is a process with the same other options."""
    ray: Annotated[int, tyro.conf.arg(metavar="N")] = 0
    """Recommend to the users of a Parquet file with histories by N actors of a Ray cluster: that of RAY_ADDRESS, or one
    on this machine (docs/batch.md)."""
    data: UsersFormat = dataclasses.field(default_factory=UsersFormat)
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    """Folder for the lists of --users, in Parquet files; without --part also one file that ends in .parquet. The same
    command continues where it was stopped."""
    why: tyro.conf.FlagCreatePairsOff[bool] = False
    """Name, for each item, the user's ratings that raise its score most, where there are any."""
    encoder: EncoderPlace = dataclasses.field(default_factory=EncoderPlace)
    json: Json = False


def run(arguments: Sequence[str]) -> int:
    """Run `metarec recommend` and return the exit status."""
    chosen = parse(RecommendArguments, "recommend", arguments)
    if chosen.users or chosen.out or chosen.part or chosen.ray:
        return _recommend_users(chosen, arguments)
    history = [parse_rating(text) for text in chosen.rate]
    reporter = prepare()
    from metarec_jax.recommender.recommender import Recommender

    recommender = Recommender.load(place(chosen.run), encoder_path=chosen.encoder.path, report=reporter.note)
    state = recommender.adapt(history, chosen.profile)
    for note in state.notes:
        reporter.note(note)
    found = recommender.recommend(state, chosen.k, exclude_seen=not chosen.include_seen)
    names = [f"id:{item.id}" for item in found]
    scores = {text: recommender.score_text(state, text) for text in chosen.item_text}
    deviations = recommender.uncertainty(state, names).tolist() if recommender.gives_uncertainty else []
    reasons = recommender.explain(state, names) if chosen.why else []
    items = recommender.catalogue.items
    rated = [
        (items.ids[row], items.titles[row], rating) for row, (_, rating) in zip(state.history.rows.tolist(), history)
    ]
    if chosen.json:
        trees = [item._asdict() for item in found]
        for tree, deviation in zip(trees, deviations):
            tree["uncertainty"] = deviation
        for tree, reason in zip(trees, reasons):
            tree |= _reason(reason)
        print_json(
            {
                "run": chosen.run,
                "rated": [{"id": i, "title": title, "rating": rating} for i, title, rating in rated],
                "recommended": trees,
                "item_texts": [{"text": text, "score": score} for text, score in scores.items()],
            }
        )
        return 0
    print_rated([(title, rating) for _, title, rating in rated])
    columns = {
        "": [str(n) for n in range(1, len(found) + 1)],
        "item": [item.title for item in found],
        score_title(recommender): [f"{item.score:.2f}" for item in found],
        "ratings in training": [str(item.ratings) for item in found],
    }
    if deviations:
        columns["standard deviation"] = [f"{deviation:.2f}" for deviation in deviations]
    numbers = [0, *range(2, len(columns))]
    if reasons:
        columns["why"] = [reason.sentence for reason in reasons]
    print_grid("Recommended", list(columns), list(zip(*columns.values())), numbers=numbers)
    if scores:
        rows = [[text, f"{score:.2f}"] for text, score in scores.items()]
        print_grid("Other items", ["text", score_title(recommender)], rows, numbers=[1])
    return 0


def parse_rating(text: str) -> tuple[str, float]:
    """Split "TITLE=RATING" into the title and the rating.

    >>> parse_rating("2+2=5: A Film (1984) = 4.5")
    ('2+2=5: A Film (1984)', 4.5)
    """
    title, equals, rating = text.rpartition("=")
    try:
        if equals and title.strip():
            return title.strip(), float(rating)
    except ValueError:
        pass
    raise MetarecError(f'--rate {text!r}: write TITLE=RATING, for example --rate "Toy Story (1995)=5"')


def score_title(recommender: Recommender) -> str:
    """Title of the column of a recommender's scores."""
    return "expected rating" if recommender.catalogue.scale.kind == "rating" else "probability of a click"


def print_rated(rated: Sequence[tuple[str, float]]) -> None:
    """Print titles and ratings as a table, where there are any."""
    if rated:
        print_grid("Rated", ["item", "rating"], [[title, f"{rating:g}"] for title, rating in rated], numbers=[1])


def _reason(explanation: Explanation) -> dict[str, Any]:
    return {"why": explanation.sentence, "because": [influence._asdict() for influence in explanation.because]}


def _recommend_users(chosen: RecommendArguments, arguments: Sequence[str]) -> int:
    """`metarec recommend --users`."""
    if not (chosen.users and chosen.out):
        raise MetarecError("--users FILE and --out FOLDER go together: give both")
    if chosen.rate or chosen.profile or chosen.item_text:
        raise MetarecError("--users reads ratings from its file: leave out --rate, --profile and --item-text")
    if chosen.why:
        raise MetarecError("--why explains one list: leave it out with --users")
    from metarec_jax.recommender.batch_parts import parse_part, recommend_file, recommend_part

    check_range("--ray", chosen.ray, 0, 1_000_000)
    part = parse_part(chosen.part) if chosen.part else None
    if chosen.ray and part is not None:
        raise MetarecError("--part divides the users among processes, and --ray among actors: leave out one of them")
    out = place(chosen.out)
    one_file = out.suffix.lower() == ".parquet"
    if one_file and (part is not None or chosen.ray):
        option = "--ray" if chosen.ray else "--part"
        raise MetarecError(f"{option} writes files into a folder, and --out {chosen.out} is one file: name a folder")
    reporter = prepare()
    if chosen.ray:
        return _recommend_on_a_cluster(chosen, arguments, out)
    from metarec_jax.recommender.recommender import Recommender
    from metarec_jax.recommender.users_file import open_users

    recommender = Recommender.load(place(chosen.run), encoder_path=chosen.encoder.path, report=reporter.note)
    options = vars(_format_of(recommender.config.data, chosen, arguments))
    # The run has the columns of its items.
    columns = dataclasses.replace(options["columns"], item_text="", item_vector="", image="")
    kind = recommender.catalogue.scale.kind
    source = DataConfig(source="table", path=chosen.users, kind=kind, **{**options, "columns": columns})
    write = recommend_file if one_file else functools.partial(recommend_part, part=part or parse_part("1/1"))
    result = write(
        recommender,
        open_users(recommender, source),
        out=out,
        k=chosen.k,
        exclude_seen=not chosen.include_seen,
        reporter=reporter,
    )
    return _print_result(result, chosen, part)


def _format_of(trained: DataConfig, chosen: RecommendArguments, arguments: Sequence[str]) -> UsersFormat:
    """Parse the arguments again, with the options of the run as defaults, for the format of the file of users."""
    names = [field.name for field in dataclasses.fields(UsersFormat)]
    default = RecommendArguments(chosen.run, data=UsersFormat(**{name: getattr(trained, name) for name in names}))
    return parse(RecommendArguments, "recommend", arguments, default).data


def _recommend_on_a_cluster(chosen: RecommendArguments, arguments: Sequence[str], out: Path) -> int:
    """`metarec recommend --users --ray`."""
    from metarec_jax.recommender.ray_jobs import Pool, recommend_users
    from metarec_jax.train.run_folder import open_run

    run = place(chosen.run)
    result = recommend_users(
        run,
        place(chosen.users),
        out,
        Pool(chosen.ray),
        k=chosen.k,
        exclude_seen=not chosen.include_seen,
        columns=_format_of(open_run(run).config.data, chosen, arguments).columns,
        encoder_path=chosen.encoder.path,
    )
    return _print_result(result, chosen, None)


def _print_result(result: Result, chosen: RecommendArguments, part: Part | None) -> int:
    rate = result.computed / result.seconds if result.seconds else 0.0
    where = f"{Path(chosen.out)}" + (f", part {part}" if part else "")
    if chosen.json:
        print_json({**result._asdict(), "users/s": rate, "out": str(Path(chosen.out)), "part": chosen.part or "1/1"})
    elif result.computed or not result.users:
        print(f"lists for {result.users:,} users: {where} ({rate:,.0f} users/s)")
    else:
        print(f"lists for {result.users:,} users: {where} was finished already")
    return 0
