"""The options of the `metarec` command, as dataclasses whose docstrings are what ``--help`` prints."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from metarec_jax.config.data import Columns, SplitKind
from metarec_jax.config.json_io import Chosen
from metarec_jax.config.json_io import parse as parse_json
from metarec_jax.config.pretrain import PretrainConfig, starting_from
from metarec_jax.config.run import DEFAULT_PRESET, PRESETS, Config, preset
from metarec_jax.core.errors import MetarecError

RUNS = Path("runs")
_NEW_USERS = {"min_ratings": 13, "max_ratings": 100, "query": 10, "max_support": 90, "order": "random"}
_EVERYONE = {"max_ratings": 0, "query": 10, "order": "random"}
PROTOCOLS: Mapping[str, tuple[SplitKind, Mapping[str, Any], Mapping[str, Any]]] = {
    "melu": ("melu", _NEW_USERS | {"test": 0.2}, {}),
    "recbole-metarec": ("users", _NEW_USERS | {"validation": 0.1, "test": 0.1}, {}),
    "tallrec": ("tallrec", _EVERYONE, {"min_ratings": 13, "max_support": 90}),
    "few-shot": ("few-shot", _EVERYONE, {"min_ratings": 13, "max_support": 20, "lengths": "varied"}),
    "time": ("time", _EVERYONE, {"min_ratings": 13, "max_support": 90}),
}
"""Protocols of the field by name: the kind of division, the episode options that they fix, and those that they begin
with, which can be changed."""

MODES = ("own", "melu", "recbole-metarec", "tanp", "mamo", "metahin")
"""As in `metarec_jax.evaluation.metric_sets`, which is not imported here: help imports nothing slow."""

Arguments = TypeVar("Arguments")


@dataclasses.dataclass(frozen=True)
class TrainArguments:
    """Meta-train a new run, or continue one with --resume.

    Options are taken from the command line, then from --config, then from --preset.
    """

    preset: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PRESETS) + "}")] = DEFAULT_PRESET
    """Where options start from."""
    config_file: Annotated[str, tyro.conf.arg(name="config", metavar="FILE.json")] = ""
    """Options as JSON, in the form of a run's config.json; what it leaves out comes from the preset."""
    out: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    """The run folder, which must not hold a run. "" is runs/NAME-N, the first that is free."""
    resume: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    """Continue this run where it stopped. Its options stay as they are."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the result as JSON, and nothing else, on stdout."""
    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


@dataclasses.dataclass(frozen=True)
class PretrainArguments:
    """Pretrain an encoder further on item texts and on what training users did, or continue with --resume.

    The encoder that comes out (RUN/encoder) is an ordinary checkpoint, for `metarec train --encoder.path` with the same
    data, --episodes options and seed: validation and test users stay unseen.
    """

    preset: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PRESETS) + "}")] = DEFAULT_PRESET
    """Where the options of data, episodes and encoder start from."""
    config_file: Annotated[str, tyro.conf.arg(name="config", metavar="FILE.json")] = ""
    """Options as JSON, in the form of a pretraining's config.json; what it leaves out comes from the preset."""
    out: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    """The run folder, which must not hold a run. "" is runs/pretrain-NAME-N, the first that is free."""
    resume: Annotated[str, tyro.conf.arg(metavar="RUN")] = ""
    """Continue this pretraining where it stopped. Its options stay as they are."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the result as JSON, and nothing else, on stdout."""
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=PretrainConfig)


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Compare with the baselines: a trained run, or (with --protocol or --out) configs trained anew for each seed.

    Tables (Markdown, JSON) and plots go to the run folder, or to --out.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")] = ""
    """A trained run. Leave it out to train anew, with the options below."""
    seeds: int = 0
    """How many seeds. A run's own seed is the first; the others are trained anew. 0 is 1, or 20 with --protocol."""
    protocol: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PROTOCOLS) + "}")] = ""
    """A protocol of the field, which fixes what trains, users, support and query (docs/protocols.md)."""
    metrics: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(MODES) + "}")] = "own"
    """Whose metrics: this package's, or those of published code, for a figure to put beside theirs."""
    preset: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PRESETS) + "}")] = DEFAULT_PRESET
    """Where options start from."""
    config_file: Annotated[str, tyro.conf.arg(name="config", metavar="FILE.json")] = ""
    """Options as JSON; what it leaves out comes from the preset."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    """Where tables and plots go; one that was begun is gone on with. "" is the run folder, or else runs/PROTOCOL."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the table as JSON, and nothing else, on stdout."""
    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


@dataclasses.dataclass(frozen=True)
class TuneArguments:
    """Search for options on validation users. Test users' ratings are never looked at.

    A search that was stopped goes on where it was, with the same command; more --trials learn from those before. The
    best options are written to OUT/best.json, for --config.
    """

    trials: int = 30
    """How many trials there are in the end. Each trains a run."""
    space: Annotated[str, tyro.conf.arg(metavar="FILE.json")] = ""
    """What is searched: {"train.rate": {"low": 0.001, "high": 0.01, "log": true}, "learner.hidden": [64, 128]}. "" is
    a space of seven options of the learner, the inner loop and the outer loop."""
    metric: str = "loss"
    """What is searched for: "loss", which training stops by, or a metric such as mae, rmse, ndcg@5, auc."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    """Where the search is kept. "" is runs/tune-NAME."""
    preset: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PRESETS) + "}")] = DEFAULT_PRESET
    """Where options start from."""
    config_file: Annotated[str, tyro.conf.arg(name="config", metavar="FILE.json")] = ""
    """Options as JSON; what it leaves out comes from the preset."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the result as JSON, and nothing else, on stdout."""
    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


@dataclasses.dataclass(frozen=True)
class CompareArguments:
    """Compare two evaluations on the same test users: paired bootstrap, for all rows and cohort by cohort.

    Both must be of the same data, protocol and seeds: what `metarec evaluate` left in a run folder or in --out.
    """

    a: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_A")]
    """An evaluated run, or a folder of an evaluation."""
    b: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_B")]
    """Another one."""
    method: str = "meta-learned"
    """Which row of A's table."""
    against: str = ""
    """Which row of B's table; "" is the same."""
    metrics: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(MODES) + "}")] = "own"
    """Whose metrics."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""


@dataclasses.dataclass(frozen=True)
class RecommendArguments:
    """Adapt a trained run to one user's ratings, and recommend.

    Titles are matched without regard to case, accents, punctuation, articles and a missing year; "id:50" names an item
    by its id. Without --rate, the list is that of a user of whom nothing is known.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A trained run."""
    rate: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TITLE=RATING")] = ()
    """What the user rated (or clicked: =1), oldest first."""
    k: Annotated[int, tyro.conf.arg(aliases=("-k",), metavar="N")] = 10
    """How many items."""
    profile: str = ""
    """The user's profile, for a run with --learner.user-side profile."""
    item_text: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TEXT")] = ()
    """Score an item that is not in the catalogue, from its text."""
    include_seen: tyro.conf.FlagCreatePairsOff[bool] = False
    """List also what the user has rated."""
    users: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Recommend to all users of a .csv or .parquet file of ratings, one row a rating; needs --out."""
    columns: Columns = dataclasses.field(default_factory=Columns)
    """Its columns."""
    out: Annotated[str, tyro.conf.arg(metavar="FILE.parquet")] = ""
    """Where their lists go. A command that was stopped goes on where it was."""
    why: tyro.conf.FlagCreatePairsOff[bool] = False
    """Say of each item which ratings of the user's speak most for it, where any does."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""


@dataclasses.dataclass(frozen=True)
class InterviewArguments:
    """Ask a new user about the items whose ratings tell most, one at a time, then recommend.

    Answers are read from the terminal, or line by line from a pipe. The run must have --factors.rank above 0.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A trained run."""
    questions: int = 5
    """How many answers to ask for. Items that the user does not know are not counted."""
    rate: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TITLE=RATING")] = ()
    """What is known already."""
    among: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="TITLE")] = ()
    """An item that the user is known to know (has bought, say): then only such are asked about."""
    k: Annotated[int, tyro.conf.arg(aliases=("-k",), metavar="N")] = 10
    """How many items are recommended at the end."""
    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """Ask nothing: print the questions, as if each were answered, and end."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Write a run as a folder that a user's own device adapts and recommends with (docs/privacy.md).

    examples/on_device.py reads it with JAX and NumPy alone.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A trained run."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """Where to; a new folder."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""


@dataclasses.dataclass(frozen=True)
class ServeArguments:
    """Serve a trained run over HTTP, with a page to try it on.

    Needs the extra `serve`: pip install 'metarec_jax[serve]'. Feedback, users and new items are kept in the store's
    folder and are there again after a restart. /openapi.json describes the routes, and so does docs/serving.md.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A trained run."""
    against: Annotated[str, tyro.conf.arg(metavar="RUN_B")] = ""
    """A second run of the same items, to compare with."""
    mode: Literal["auto", "single", "ab", "interleave"] = "auto"
    """With a second run: whether every user gets one of the two ("ab", the default), or lists that both take turns to
    fill ("interleave")."""
    share: float = 0.5
    """With mode "ab": share of the users that get the second run."""
    explore: float = 0.0
    """The chance that a list is drawn at random from the best items: then other rankings can be judged from the log."""
    pool: int = 50
    """From how many of the best items such a list is drawn."""
    host: str = "127.0.0.1"
    """Where to listen. An address that others can reach needs a token in $METAREC_TOKEN."""
    port: int = 8765
    """0 takes any that is free."""
    store: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    """Where feedback, users and new items are kept. "" is RUN/service."""
    wait_ms: float = 3.0
    """Milliseconds that the first of several requests waits for others, to be computed together."""
    together: int = 64
    """Most requests that are computed together; 1 computes them one at a time."""
    people: bool = True
    """Whether test users of a public data set can be picked on the page."""
    open: bool = False
    """Whether to open the page in this desktop's browser, where there is one."""


@dataclasses.dataclass(frozen=True)
class FeedbackArguments:
    """What a service's log says: CTR, precision, nDCG of clicks, two models compared, lists that were not shown.

    Every figure has a 95 % interval over users (metarec_jax.serving.analytics says how each is made).
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run that was served."""
    store: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    """Where its feedback was kept. "" is RUN/service."""
    target: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="RUN")] = ()
    """Another run: what would its lists have got? Needs lists that were drawn at random (serve --explore)."""
    export: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    """Write the log as interactions for `metarec train`: a .csv or .parquet file, and the items beside it."""
    merge: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --export: put the interactions that the run was trained from first, to go on training on both."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""


@dataclasses.dataclass(frozen=True)
class SimulateArguments:
    """Have people use a running service: test users of the run's data, who click and rate as their ratings have it.

    metarec_jax.serving.simulate says how they behave. Then see `metarec feedback`.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The run that is served."""
    address: str = "http://127.0.0.1:8765/"
    """Of the service; one that demands a token finds it in $METAREC_TOKEN."""
    users: int = 0
    """How many; 0 takes all test users."""
    lists: int = 5
    """Lists that each one looks at."""
    k: Annotated[int, tyro.conf.arg(aliases=("-k",), metavar="N")] = 10
    """Places of a list."""
    start: int = 5
    """Ratings that each begins with."""
    seed: int = 0
    """Of what they look at and click."""


@dataclasses.dataclass(frozen=True)
class DemoArguments:
    """The whole method, on MovieLens-100K with all-MiniLM-L6-v2: load, encode, meta-train, evaluate, recommend."""

    out: Annotated[str, tyro.conf.arg(metavar="RUN")] = "runs/demo"
    """The run folder. One that is there already is kept: the next free name is taken."""
    seed: int = 0
    """Of everything that is drawn."""


@dataclasses.dataclass(frozen=True)
class AotArguments:
    """Compile the outer step for accelerators that need not be here, and say whether it fits and what it costs.

    Nothing runs and no data is read. Memory, FLOPs and collectives are facts about the compiled program; cycles, times
    and users a second are estimates by the compiler, or from published figures, and no measurement. TPUs need
    metarec_jax[tpu], GPUs metarec_jax[cuda]. Large encoders take minutes to compile.
    """

    target: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CHIP:TOPOLOGY")] = ("v5e:1x1",)
    """What to compile for: v5e:2x2, v5p:2x2x1, v6e:16x16, ... (one chip to 256), cuda:h100, cuda:h100:8, or here for
    the devices of this machine. Several give a table with a column each."""
    encoder: Annotated[
        Literal["", "minilm", "bert-base", "bert-large", "bert-1b", "bert-7b"], tyro.conf.arg(name="encoder")
    ] = ""
    """An encoder by its shape alone; "" is that of --encoder.path."""
    users_per_chip: int = 0
    """Users of a step on each chip; 0 takes --train.users-per-step for all of them."""
    items: int = 0
    """Items of the data set; 0 takes those of --data.source."""
    text_length: int = 32
    """Tokens of a text."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile at a lower level: quicker by three, and comparable only with its like."""
    preset: Annotated[str, tyro.conf.arg(metavar="{" + ",".join(PRESETS) + "}")] = DEFAULT_PRESET
    """Where options start from."""
    config_file: Annotated[str, tyro.conf.arg(name="config", metavar="FILE.json")] = ""
    """Options as JSON; what it leaves out comes from the preset."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""
    config: Annotated[Config, tyro.conf.arg(name="")] = dataclasses.field(default_factory=Config)


@dataclasses.dataclass(frozen=True)
class BenchArguments:
    """Measure how fast this machine trains, encodes and recommends, and say what bounds it. It needs no data."""

    rounds: int = 7
    """Turns of everything that is timed."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    """Show devices, versions, and which data and weights were found where. Exit status 1 if the demo could not run."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print JSON, and nothing else, on stdout."""


def parse(kind: type[Arguments], command: str, arguments: Sequence[str], default: Any = None) -> Arguments:
    """`arguments` as a `kind`, or an exit with status 2 that says what is wrong with them."""
    return tyro.cli(kind, prog=f"metarec {command}", args=list(arguments), default=default)


def starting_config(command: str, arguments: Sequence[str]) -> tuple[str, Config]:
    """What --preset and --config among `arguments` say: a name for the run, and the config that options change."""
    found = _early(command, arguments)
    config = preset(found.preset or DEFAULT_PRESET)
    name = found.preset or DEFAULT_PRESET
    if found.config:
        config, name = _read_config(Path(found.config), config), Path(found.config).stem
    if found.protocol:
        config, name = _protocol(found.protocol, config), found.protocol
    return name, config


def starting_pretraining(arguments: Sequence[str]) -> tuple[str, PretrainConfig]:
    """The same of `metarec pretrain`."""
    found = _early("pretrain", arguments)
    config = starting_from(preset(found.preset or DEFAULT_PRESET))
    if found.config:
        return Path(found.config).stem, _read_config(Path(found.config), config)
    return found.preset or DEFAULT_PRESET, config


def _early(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    early = argparse.ArgumentParser(prog=f"metarec {command}", add_help=False, allow_abbrev=False)
    for name in ("--preset", "--config", "--protocol"):
        early.add_argument(name)
    return early.parse_known_args(arguments)[0]


def read_json(path: Path, option: str) -> Any:
    """What a JSON file holds, that `option` names."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise MetarecError(f"{option} {path}: cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise MetarecError(f"{option} {path}, line {error.lineno}: not valid JSON ({error.msg})") from error


def _read_config(path: Path, base: Chosen) -> Chosen:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise MetarecError(f"{path}: byte {error.start} is not UTF-8; a config is JSON text") from error
    except OSError as error:
        raise MetarecError(f"--config {path}: cannot be read ({error.strerror})") from error
    with contextlib.suppress(json.JSONDecodeError):
        tree = json.loads(text)
        if isinstance(tree, dict) and tree.pop("layout", None) is not None:  # the config.json of a run
            tree.pop("command", None)
            text = json.dumps(tree)
    return parse_json(text, where=str(path), base=base)


def _protocol(name: str, config: Config) -> Config:
    """`config` with what the protocol called `name` fixes and begins with."""
    if name not in PROTOCOLS:
        raise MetarecError(f"no protocol is called {name!r}; there are {', '.join(PROTOCOLS)}")
    kind, fixed, first = PROTOCOLS[name]
    return dataclasses.replace(
        config,
        split=dataclasses.replace(config.split, kind=kind),
        episodes=dataclasses.replace(config.episodes, **{**first, **fixed}),
    )


def check_protocol(name: str, config: Config) -> None:
    """Refuses options that contradict the protocol called `name`."""
    kind, fixed, _ = PROTOCOLS[name]
    wanted = {"split.kind": kind} | {f"episodes.{field}": value for field, value in fixed.items()}
    got = {"split.kind": config.split.kind} | {f"episodes.{field}": getattr(config.episodes, field) for field in fixed}
    for option, value in wanted.items():
        if got[option] != value:
            raise MetarecError(
                f"protocol {name} has {option} {value}, and not {got[option]}: leave out that option, or leave out "
                "--protocol"
            )


def free_folder(name: str, folder: Path = RUNS, first: int = 1) -> Path:
    """The first of ``folder/name-1``, ``folder/name-2``, ... that does not exist."""
    number = first
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"
