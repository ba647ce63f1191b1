"""The `metarec` command.

    metarec COMMAND ...      see `metarec --help`

Exit status: 0; 2 for a mistake in the input, with one message on stderr; 130 or 143 after Ctrl-C or SIGTERM; 141 where
the reader of the output went away. Results go to stdout, everything else to stderr. Importing this module, and asking
for help, imports no JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from metarec_jax.cli.options import (
    MODES,
    RUNS,
    AotArguments,
    BenchArguments,
    CompareArguments,
    DemoArguments,
    DoctorArguments,
    EvaluateArguments,
    ExportArguments,
    FeedbackArguments,
    InterviewArguments,
    PretrainArguments,
    RecommendArguments,
    ServeArguments,
    SimulateArguments,
    TrainArguments,
    TuneArguments,
    check_protocol,
    free_folder,
    parse,
    read_json,
    starting_config,
    starting_pretraining,
)
from metarec_jax.config.run import DEFAULT_PRESET, Config, preset
from metarec_jax.core.errors import MetarecError, Stopped

if TYPE_CHECKING:
    from metarec_jax.config.pretrain import PretrainConfig
    from metarec_jax.core.progress import Reporter
    from metarec_jax.evaluation.report import Table
    from metarec_jax.recommender.attribution import Explanation
    from metarec_jax.train.loop import Fitted

HELP = """\
usage: metarec COMMAND [OPTIONS]        metarec COMMAND --help says more
A recommender that learns how to learn a user: meta-learning over a pretrained BERT.

  demo        load, encode, meta-train, evaluate and recommend, on MovieLens-100K
  pretrain    train an encoder further, on item texts and on what users did
  train       meta-train a run, or continue one
  tune        search for options, on validation users
  evaluate    compare a run, or a protocol over several seeds, with the baselines
  compare     two evaluations, on the same test users
  recommend   adapt a run to the ratings of one user, and recommend
  interview   ask a new user what tells most, and recommend
  export      write a run as a folder that a user's own device recommends with
  serve       a service and a page in front of a run
  feedback    what a service's users clicked and rated, and two models compared
  simulate    test users who click and rate, for a service that runs
  aot         compile for TPUs and GPUs that are not here: what fits, and what it costs
  bench       how fast this machine trains, encodes and recommends, and what bounds it
  doctor      devices, versions, and which data and weights were found where

  metarec train --data.path ratings.csv --data.columns.user who --data.columns.item what
  metarec evaluate --protocol recbole-metarec --seeds 20

Exit status: 0, 2 for a mistake in the input, 130 / 143 when stopped by Ctrl-C / SIGTERM.
"""


# The commands


def train(arguments: Sequence[str]) -> int:
    """`metarec train`."""
    name, base = starting_config("train", arguments)
    chosen = parse(TrainArguments, "train", arguments, TrainArguments(config=base))
    untouched = TrainArguments(config=preset(DEFAULT_PRESET))
    if chosen.resume and dataclasses.replace(chosen, resume="", json=False) != untouched:
        raise MetarecError("--resume takes no option but --json: a run goes on with the config.json in its folder")
    reporter = prepare(chosen.config)
    from metarec_jax.privacy import accounting
    from metarec_jax.train import start
    from metarec_jax.train.start import fit

    if chosen.resume:
        run, experiment = start.resume(Path(chosen.resume), reporter=reporter)
    else:
        folder = Path(chosen.out) if chosen.out else free_folder(_run_name(name, chosen.config))
        run, experiment = start.start(chosen.config, folder, reporter=reporter)
    fitted = fit(run, experiment, reporter=reporter)
    if fitted.interrupted:
        return stopped(fitted, run.folder)
    from metarec_jax.evaluation import plots

    lines = list(run.read_metrics())
    losses = [[line[key] for line in lines] for key in ("epoch", "train_loss", "validation_loss")]
    plot = plots.save(plots.training_figure(*losses), run.plots / "training.png")
    progress, spent = fitted.progress, accounting.read(run)
    if chosen.json:
        private = {} if spent is None else {"privacy": spent}
        print(json.dumps({"run": str(run.folder), "plot": str(plot), **_without_iterator(progress), **private}))
        return 0
    if spent is not None:
        print(accounting.statement(spent))
    print(
        f"trained {progress.epoch} epochs; least validation loss {progress.best_loss:.4f} in epoch "
        f"{progress.best_epoch}\nrun: {run.folder}\nplot: {plot}\n"
        f"next: metarec evaluate {run.folder}\n"
        f'      metarec recommend {run.folder} --rate "TITLE=RATING"'
    )
    return 0


def pretrain(arguments: Sequence[str]) -> int:
    """`metarec pretrain`."""
    name, base = starting_pretraining(arguments)
    chosen = parse(PretrainArguments, "pretrain", arguments, PretrainArguments(config=base))
    if chosen.resume and dataclasses.replace(chosen, resume="", json=False) != PretrainArguments():
        raise MetarecError("--resume takes no option but --json: a run goes on with the config.json in its folder")
    reporter = prepare(chosen.config)
    from metarec_jax.cli import pretrain_report
    from metarec_jax.train.pretraining import start
    from metarec_jax.train.pretraining.start import fit

    if chosen.resume:
        run, pretraining = start.resume(Path(chosen.resume), reporter=reporter)
    else:
        folder = Path(chosen.out) if chosen.out else free_folder(f"pretrain-{_run_name(name, chosen.config)}")
        run, pretraining = start.start(chosen.config, folder, reporter=reporter)
    pretrained = fit(run, pretraining, reporter=reporter)
    if pretrained.signal:
        return stopped_by(pretrained.signal, pretrained.step, f"metarec pretrain --resume {run.folder}")
    encoder = start.finish(run, pretraining, pretrained)
    plot = pretrain_report.draw(run)
    if chosen.json:
        print(json.dumps(pretrain_report.to_json(run, pretrained, encoder, plot)))
        return 0
    pretrain_report.show(pretrained)
    print(f"encoder: {encoder}\nplot: {plot}\nnext: metarec train --encoder.path {encoder} --seed {run.config.seed}")
    return 0


def tune(arguments: Sequence[str]) -> int:
    """`metarec tune`."""
    name, base = starting_config("tune", arguments)
    chosen = parse(TuneArguments, "tune", arguments, TuneArguments(config=base))
    if chosen.trials < 1:
        raise MetarecError(f"--trials is {chosen.trials}; it must be at least 1")
    reporter = prepare(chosen.config)
    from metarec_jax.core.console import print_grid
    from metarec_jax.evaluation import plots, search

    tree = read_json(Path(chosen.space), "--space") if chosen.space else search.SPACE
    space = search.read_space(tree, chosen.config)
    folder = Path(chosen.out) if chosen.out else RUNS / f"tune-{_run_name(name, chosen.config)}"
    try:
        found = search.tune(
            chosen.config, folder, trials=chosen.trials, space=space, metric=chosen.metric, reporter=reporter
        )
    except (KeyboardInterrupt, Stopped):
        reporter.note(f"what is done is kept in {folder}: the same command goes on from there")
        raise
    in_order = sorted(found.trials)
    plot = plots.save(
        plots.tuning_figure([value for _, value, _ in in_order], found.value, chosen.metric), folder / "tuning.png"
    )
    if chosen.json:
        trials = [{"trial": n, chosen.metric: value, "options": options} for n, value, options in found.trials]
        print(json.dumps({"best": str(folder / "best.json"), "trials": trials}, indent=2))
        return 0
    names = list(space)
    rows = [
        [str(n), f"{value:.4f}", *(_short(options[name]) for name in names)] for n, value, options in found.trials[:10]
    ]
    print_grid("Best trials", ["trial", chosen.metric, *names], rows, numbers=range(len(names) + 2))
    print(f"best: {folder / 'best.json'}\nplot: {plot}\nnext: metarec train --config {folder / 'best.json'}")
    return 0


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def evaluate(arguments: Sequence[str]) -> int:
    """`metarec evaluate`."""
    name, base = starting_config("evaluate", arguments)
    chosen = parse(EvaluateArguments, "evaluate", arguments, EvaluateArguments(config=base))
    if chosen.seeds < 0:
        raise MetarecError(f"--seeds is {chosen.seeds}; it must be at least 1")
    config = chosen.config
    if chosen.run and (chosen.protocol or chosen.config != preset(DEFAULT_PRESET)):
        raise MetarecError(
            f"{chosen.run} is evaluated with its own options: leave out the run folder to train with other ones"
        )
    if chosen.protocol:
        check_protocol(chosen.protocol, config)
    if chosen.metrics not in MODES:
        raise MetarecError(f"no metrics are called {chosen.metrics!r}; there are {', '.join(MODES)}")
    run = None
    if chosen.run:
        from metarec_jax.train import run_folder

        run = run_folder.open_run(Path(chosen.run))
        config = run.config
    folder = Path(chosen.out) if chosen.out else run.folder if run else RUNS / _run_name(name, config)
    seeds = chosen.seeds or (20 if chosen.protocol else 1)
    reporter = prepare(config)
    from metarec_jax.evaluation.evaluate import evaluate as run_evaluation
    from metarec_jax.privacy import accounting

    try:
        tables = run_evaluation(
            config,
            seeds=range(config.seed, config.seed + seeds),
            folder=folder,
            run=run,
            metrics=chosen.metrics,
            reporter=reporter,
        )
    except (KeyboardInterrupt, Stopped):
        reporter.note(f"what is done is kept in {folder}: the same command goes on from there")
        raise
    if run is not None and (spent := accounting.read(run)) is not None:
        reporter.note(accounting.statement(spent))
    show_tables(tables, as_json=chosen.json)
    reporter.note(f"tables and plots: {folder}")
    return 0


def compare(arguments: Sequence[str]) -> int:
    """`metarec compare`."""
    chosen = parse(CompareArguments, "compare", arguments)
    if chosen.metrics not in MODES:
        raise MetarecError(f"no metrics are called {chosen.metrics!r}; there are {', '.join(MODES)}")
    from metarec_jax.evaluation import compare as comparing

    found = comparing.compare(
        Path(chosen.a), Path(chosen.b), method=chosen.method, reference=chosen.against, metrics=chosen.metrics
    )
    if chosen.json:
        print(json.dumps(comparing.to_tree(found), ensure_ascii=False, indent=2))
    else:
        comparing.print_comparison(found)
    return 0


def recommend(arguments: Sequence[str]) -> int:
    """`metarec recommend`."""
    chosen = parse(RecommendArguments, "recommend", arguments)
    if chosen.users or chosen.out:
        return _recommend_users(chosen)
    history = [split_rating(text) for text in chosen.rate]
    reporter = prepare(Config())
    from metarec_jax.core.console import print_grid
    from metarec_jax.recommender.recommender import Rated, Recommender

    recommender = Recommender.load(chosen.run)
    recommender.report = reporter.note
    state = recommender.adapt([Rated(*pair) for pair in history], chosen.profile)
    for note in state.notes:
        reporter.note(note)
    found = recommender.recommend(state, chosen.k, exclude_seen=not chosen.include_seen)
    scores = {text: recommender.score_text(state, text) for text in chosen.item_text}
    known = recommender.gives_uncertainty
    spread = recommender.uncertainty(state, [f"id:{r.id}" for r in found]).tolist() if known else []
    explained = recommender.explain(state, [f"id:{r.id}" for r in found]) if chosen.why else []
    items = recommender.catalogue.items
    rated = [(items.ids[row], items.titles[row], rating) for row, (_, rating) in zip(state.seen.tolist(), history)]
    if chosen.json:
        tree = {
            "run": chosen.run,
            "rated": [{"id": i, "title": t, "rating": r} for i, t, r in rated],
            "recommended": [
                r._asdict() | ({"uncertainty": spread[n]} if known else {}) | (_why(explained[n]) if explained else {})
                for n, r in enumerate(found)
            ],
            "item_texts": [{"text": text, "score": score} for text, score in scores.items()],
        }
        print(json.dumps(tree, ensure_ascii=False, indent=2))
        return 0
    if rated:
        print_grid("Rated", ["item", "rating"], [[title, f"{rating:g}"] for _, title, rating in rated], numbers=[1])
    score = "expected rating" if recommender.catalogue.scale.kind == "rating" else "chance of a click"
    rows = [[str(n), r.title, f"{r.score:.2f}", str(r.ratings)] for n, r in enumerate(found, start=1)]
    columns = ["", "item", score, "ratings in training"]
    if known:
        columns.append("standard deviation")
        rows = [[*row, f"{deviation:.2f}"] for row, deviation in zip(rows, spread)]
    numbers = [0, *range(2, len(columns))]
    if explained:
        columns.append("why")
        rows = [[*row, explanation.sentence] for row, explanation in zip(rows, explained)]
    print_grid("Recommended", columns, rows, numbers=numbers)
    if scores:
        print_grid("Other items", ["text", score], [[t, f"{s:.2f}"] for t, s in scores.items()], numbers=[1])
    return 0


def interview(arguments: Sequence[str]) -> int:
    """`metarec interview`."""
    chosen = parse(InterviewArguments, "interview", arguments)
    history = [split_rating(text) for text in chosen.rate]
    if chosen.questions < 1:
        raise MetarecError(f"--questions is {chosen.questions}; it must be at least 1")
    reporter = prepare(Config())
    from metarec_jax.core.console import print_grid
    from metarec_jax.recommender.interview import converse
    from metarec_jax.recommender.recommender import Rated, Recommender

    recommender = Recommender.load(chosen.run)
    known = [Rated(*pair) for pair in history]
    if chosen.list:
        questions = recommender.interview(recommender.adapt(known), chosen.questions, among=chosen.among)
        if chosen.json:
            rows = [{"id": q.id, "title": q.title, "known": q.known, "gain": q.gain} for q in questions]
            print(json.dumps({"run": chosen.run, "questions": rows}, ensure_ascii=False, indent=2))
        else:
            rows = [[str(n), q.title, f"{q.known:.0%}", f"{q.gain:.4f}"] for n, q in enumerate(questions, start=1)]
            print_grid("Questions", ["", "item", "known", "gain"], rows, numbers=[0, 2, 3])
        return 0
    told = converse(recommender, chosen.questions, _read_line, reporter.note, known, chosen.among)
    found = recommender.recommend(told.state, chosen.k)
    rated = [{"item": item, "title": recommender.title(item), "rating": rating} for item, rating in told.rated]
    if chosen.json:
        tree = {"run": chosen.run, "rated": rated, "unknown": told.unknown}
        print(json.dumps(tree | {"recommended": [r._asdict() for r in found]}, ensure_ascii=False, indent=2))
        return 0
    if rated:
        print_grid("Rated", ["item", "rating"], [[r["title"], f"{r['rating']:g}"] for r in rated], numbers=[1])
    score = "expected rating" if recommender.catalogue.scale.kind == "rating" else "chance of a click"
    rows = [[str(n), r.title, f"{r.score:.2f}"] for n, r in enumerate(found, start=1)]
    print_grid("Recommended", ["", "item", score], rows, numbers=[0, 2])
    return 0


def _read_line(prompt: str) -> str:
    """A line of stdin; the prompt goes to stderr, so that stdout holds the result alone."""
    print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line


def _recommend_users(chosen: RecommendArguments) -> int:
    """`metarec recommend --users`."""
    if not (chosen.users and chosen.out):
        raise MetarecError("--users FILE and --out FILE.parquet go together: name both")
    if chosen.rate or chosen.profile or chosen.item_text:
        raise MetarecError("--users takes everything from its file: leave out --rate, --profile and --item-text")
    reporter = prepare(Config())
    from metarec_jax.config.data import DataConfig
    from metarec_jax.data import load
    from metarec_jax.recommender.batch import recommend_users
    from metarec_jax.recommender.recommender import Recommender

    recommender = Recommender.load(chosen.run)
    source = DataConfig(
        source="table", path=chosen.users, columns=chosen.columns, kind=recommender.catalogue.scale.kind
    )
    data, out = load(source, seed=0), Path(chosen.out)
    exclude_seen = not chosen.include_seen
    users = recommend_users(recommender, data, out, k=chosen.k, exclude_seen=exclude_seen, reporter=reporter)
    if chosen.json:
        print(json.dumps({"users": users, "out": str(out)}))
    else:
        print(f"lists for {users:,} users: {out}")
    return 0


def serve(arguments: Sequence[str]) -> int:
    """`metarec serve`."""
    chosen = parse(ServeArguments, "serve", arguments)
    reporter = prepare(Config())
    from metarec_jax.serving import server

    server.serve(chosen, reporter)
    return 0


def simulate(arguments: Sequence[str]) -> int:
    """`metarec simulate`."""
    chosen = parse(SimulateArguments, "simulate", arguments)
    reporter = prepare(Config())
    from metarec_jax.serving import simulate as simulation
    from metarec_jax.train import catalogue, run_folder

    run = run_folder.open_run(Path(chosen.run))
    people = simulation.held_out(run.config)
    habits = simulation.Habits(chosen.start, chosen.lists, chosen.k)
    with contextlib.closing(simulation.Client(chosen.address, os.environ.get("METAREC_TOKEN"))) as client:
        counts = simulation.simulate(
            client,
            people[: chosen.users or len(people)],
            catalogue.load(run).scale,
            habits=habits,
            seed=chosen.seed,
            reporter=reporter,
        )
    print(json.dumps(counts))
    return 0


def feedback(arguments: Sequence[str]) -> int:
    """`metarec feedback`."""
    chosen = parse(FeedbackArguments, "feedback", arguments)
    if chosen.merge and not chosen.export:
        raise MetarecError("--merge is about what is exported: name a file with --export")
    reporter = prepare(Config())
    from metarec_jax.serving import feedback as of_service
    from metarec_jax.serving.analytics import to_tree

    run = Path(chosen.run)
    store = Path(chosen.store) if chosen.store else run / "service"
    if chosen.export:
        rows, items = of_service.export(run, store, Path(chosen.export), merge=chosen.merge)
        reporter.note(
            f"{rows:,} interactions: train with --data.source table --data.path {chosen.export} "
            f"--data.items-path {items} --data.columns.item-text text"
        )
    found = of_service.judge(run, store, [Path(target) for target in chosen.target])
    if chosen.json:
        print(json.dumps(to_tree(found), indent=2))
    else:
        of_service.show(found)
    return 0


def export(arguments: Sequence[str]) -> int:
    """`metarec export`."""
    chosen = parse(ExportArguments, "export", arguments)
    prepare(Config())
    from metarec_jax.recommender.export import export_folder
    from metarec_jax.recommender.recommender import Recommender

    folder = export_folder(Recommender.load(chosen.run), Path(chosen.out))
    size = sum(path.stat().st_size for path in folder.iterdir())
    if chosen.json:
        print(json.dumps({"run": chosen.run, "folder": str(folder), "bytes": size}))
    else:
        print(
            f'folder: {folder} ({size / 1e6:.1f} MB)\nnext: python examples/on_device.py {folder} --rate "TITLE=RATING"'
        )
    return 0


def demo(arguments: Sequence[str]) -> int:
    """`metarec demo`."""
    chosen = parse(DemoArguments, "demo", arguments)
    config = dataclasses.replace(preset(DEFAULT_PRESET), seed=chosen.seed)
    wanted = Path(chosen.out)
    reporter = prepare(config)
    folder = wanted
    if wanted.exists():
        folder = free_folder(wanted.name, wanted.parent, first=2)
        reporter.note(f"{wanted} is there already and is kept: this run goes to {folder}")
    from metarec_jax.cli.demo import run_demo

    fitted = run_demo(config, folder, reporter=reporter)
    return stopped(fitted, folder) if fitted.interrupted else 0


def aot(arguments: Sequence[str]) -> int:
    """`metarec aot`."""
    _, base = starting_config("aot", arguments)
    chosen = parse(AotArguments, "aot", arguments, AotArguments(config=base))
    for name in ("users_per_chip", "items"):
        if getattr(chosen, name) < 0:
            raise MetarecError(f"--{name.replace('_', '-')} is {getattr(chosen, name)}; it must be 0 or more")
    if chosen.text_length < 3:
        raise MetarecError(f"--text-length is {chosen.text_length}; it must be at least 3")
    from metarec_jax.train.aot import targets

    wanted = [targets.parse(name) for name in chosen.target]
    targets.prepare_process(wanted)  # before anything brings up JAX's devices
    reporter = prepare(chosen.config)
    from metarec_jax.train.aot import estimate, workload

    found = []
    for target in wanted:
        config, users = chosen.config, chosen.users_per_chip * max(target.chips, 1)
        if users:
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, users_per_step=users))
        work = workload.workload(config, encoder=chosen.encoder, items=chosen.items, length=chosen.text_length)
        reporter.note(f"compiling for {target.name}")
        found.append(estimate.estimate(work, target, level="O1" if chosen.quick else ""))
    if chosen.json:
        from metarec_jax.core.environment import environment

        tree = {"environment": environment(), "estimates": [e.to_json() for e in found]}
        print(json.dumps(tree, indent=2))
    else:
        from metarec_jax.train.aot.report import show

        show(found)
    return 0


def bench(arguments: Sequence[str]) -> int:
    """`metarec bench`."""
    chosen = parse(BenchArguments, "bench", arguments)
    if chosen.rounds < 1:
        raise MetarecError(f"--rounds is {chosen.rounds}; it must be at least 1")
    reporter = prepare(Config())
    from metarec_jax.cli import bench as measuring
    from metarec_jax.core.environment import environment

    found = measuring.measure(rounds=chosen.rounds, reporter=reporter)
    if chosen.json:
        print(json.dumps({"environment": environment(), **found}, indent=2))
    else:
        measuring.show(found)
    return 0


def doctor(arguments: Sequence[str]) -> int:
    """`metarec doctor`."""
    chosen = parse(DoctorArguments, "doctor", arguments)
    from metarec_jax.cli import doctor as examination

    found = examination.examine()
    if chosen.json:
        print(json.dumps(found, indent=2))
    else:
        examination.show(found)
    return 1 if found["problems"] else 0


# What the commands share


def prepare(config: Config | PretrainConfig) -> Reporter:
    """What comes before the work: a cache of compilations, and someone who reports."""
    keep_compilations(config)
    from metarec_jax.core.console import make_reporter

    return make_reporter()


def keep_compilations(config: Config | PretrainConfig) -> None:
    """Has JAX keep what it compiles in the cache folder, so that a second run starts at once."""
    from metarec_jax.core import compile_cache
    from metarec_jax.data.sources.find import cache_folder

    compile_cache.keep_compilations(cache_folder(config.data.cache))


def show_tables(tables: Mapping[str, Table], *, as_json: bool) -> None:
    """Prints an evaluation on stdout."""
    from metarec_jax.core.environment import environment
    from metarec_jax.evaluation.scenarios import print_tables, several_to_json

    if as_json:
        print(several_to_json(tables, environment()), end="")
    else:
        print_tables(tables)


def split_rating(text: str) -> tuple[str, float]:
    """The title and rating in "TITLE=RATING".

    >>> split_rating("2+2=5: A Film (1984) = 4.5")
    ('2+2=5: A Film (1984)', 4.5)
    """
    title, equals, rating = text.rpartition("=")
    try:
        if equals and title.strip():
            return title.strip(), float(rating)
    except ValueError:
        pass
    raise MetarecError(f'--rate {text!r}: write TITLE=RATING, for example --rate "Toy Story (1995)=5"')


def stopped(fitted: Fitted, folder: Path) -> int:
    """Says how to go on after a signal; returns the exit status."""
    return stopped_by(fitted.signal or signal.SIGINT, fitted.progress.step, f"metarec train --resume {folder}")


def stopped_by(number: signal.Signals, step: int, go_on: str) -> int:
    """Says how to go on after signal `number`; returns the exit status."""
    print(
        f"metarec: stopped by {number.name} after {step} steps; everything is saved. Go on with: {go_on}",
        file=sys.stderr,
    )
    return 128 + number


def _why(explanation: Explanation) -> dict[str, Any]:
    return {"why": explanation.sentence, "because": [reason._asdict() for reason in explanation.because]}


def _run_name(name: str, config: Config | PretrainConfig) -> str:
    return Path(config.data.path).stem or name if config.data.path else name


def _without_iterator(progress: Any) -> dict[str, Any]:
    shown = ("step", "epoch", "best_epoch", "best_step", "best_loss", "finished")
    return {field: getattr(progress, field) for field in shown}


COMMANDS = {
    c.__name__: c
    for c in (
        demo,
        pretrain,
        train,
        tune,
        evaluate,
        compare,
        recommend,
        interview,
        serve,
        feedback,
        simulate,
        export,
        bench,
        aot,
        doctor,
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments` (those of the process where None) name; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with _terminable():
            status = _dispatch(arguments)
            sys.stdout.flush()
        return status
    except MetarecError as error:
        return _fail(str(error))
    except BrokenPipeError:
        # The reader has gone. Python flushes stdout once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, Stopped) as stop:
        print("metarec: stopped", file=sys.stderr)
        return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG):
            raise
        place = f"{error.filename}: " if error.filename else ""
        return _fail(f"{place}{error.strerror}: free some space, change the permissions, or name another folder")


def _dispatch(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        import importlib.metadata

        print(f"metarec_jax {importlib.metadata.version('metarec_jax')}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(command, COMMANDS, n=1)
        raise MetarecError(
            f"there is no command {command!r}{f'; did you mean {near[0]!r}?' if near else ''} "
            f"The commands are {', '.join(COMMANDS)}"
        )
    return COMMANDS[command](rest)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Turns SIGTERM into an exception, so that what is half-written is removed on the way out."""

    def stop(number: int, _frame: Any) -> NoReturn:
        raise Stopped(signal.Signals(number))

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str) -> int:
    print(f"metarec: {message}", file=sys.stderr)
    return 2
