"""Run every command of `metarec`, with every extra, in an environment without the test packages.

    python tests/lowest.py FOLDER EXTRA...

`make test-lowest` runs it where each requirement has the lowest version that pyproject.toml allows. Every command must
end with status 0 in a process in which a deprecation warning that this package causes is an error. Data are synthetic,
the encoders untrained; nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

STRICT = """
import sys, warnings
for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
    warnings.filterwarnings("error", category=kind, module="metarec_jax")
"""
"""Start of a Python program in which such a warning at a line of this package is an error."""
COMMAND = f"{STRICT}from metarec_jax.cli.process import run; run()"
DEMO = f"""{STRICT}
from pathlib import Path
from metarec_jax.cli.demo import run_demo
from metarec_jax.config.run import from_json, preset
changes = '{{"encoder": {{"path": "random"}}, "train": {{"epochs": 1}}, "updater": {{"steps": 1}}}}'
config = from_json(changes, where="the demo", base=preset("synthetic"))
sys.exit(run_demo(config, Path("demo"), new_user=[("id:1", 5.0), ("id:2", 2.0)]))
"""
"""`metarec demo` on synthetic data."""
SENTENCEPIECE = """
import dataclasses, io, sys
from pathlib import Path
import jax
import sentencepiece
from metarec_jax import encoder
bert = encoder.random_encoder()
model = io.BytesIO()
lines = ["a quick brown fox jumps over the lazy dog", "a space adventure with aliens", "two films of 1994"] * 3
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(lines), model_writer=model, vocab_size=40, minloglevel=2
)
config = dataclasses.replace(bert.config, vocab_size=64, max_positions=66, model_type="xlm-roberta", pad_token_id=1)
encoder.save(dataclasses.replace(bert, config=config, params=encoder.init(0, config)), sys.argv[1])
for path in Path(sys.argv[1]).iterdir():
    if path.name not in ("config.json", "model.safetensors"):
        path.unlink()
(Path(sys.argv[1]) / "sentencepiece.bpe.model").write_bytes(model.getvalue())
"""
"""Write an untrained encoder with a SentencePiece model as its tokenizer."""
USERS = """
import pyarrow as pa
import pyarrow.parquet as pq
users = [{"user_id": "a", "history": [{"item_id": "1", "rating": 5.0}]}, {"user_id": "b", "history": []}]
pq.write_table(pa.Table.from_pylist(users), "users.parquet")
"""
"""Write a file of users with a history in each row."""
SMALL = ("--preset", "synthetic", "--train.epochs", "1", "--updater.steps", "1")
RANDOM = ("--encoder.path", "random")
ADDRESS = r"http://\S+:[1-9]\d*/"
"""Regular expression of the address that `metarec serve` prints."""
SECONDS = 600
"""Longest time of a command, and of the start of a service."""


def python(code: str, *arguments: str) -> str:
    """Run a Python program in a new process.

    Args:
        code: the program.
        *arguments: its arguments.

    Returns:
        What it printed on stdout.

    Raises:
        SystemExit: its status is not 0; the message has its output.
    """
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=SECONDS,
    )  # fmt: skip
    name = " ".join(arguments) or code.strip().splitlines()[-1]
    if done.returncode:
        raise SystemExit(f"{name}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    print(f"{time.perf_counter() - started:6.1f} s  {name}", flush=True)
    return done.stdout


def metarec(*arguments: str) -> str:
    """Run a command of `metarec`, and return what it printed on stdout."""
    return python(COMMAND, *arguments)


@contextlib.contextmanager
def background(until: str, *arguments: str) -> Iterator[str]:
    """Run a command of `metarec` in the background, and stop it with SIGTERM at the end.

    Args:
        until: a regular expression; the context begins when the command has printed it.
        *arguments: the command and its arguments.

    Yields:
        The text that was found.

    Raises:
        SystemExit: it ended by itself, or after SIGTERM not with status 143.
    """
    log = Path("background.log")
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stdout=output, stderr=output)
    try:
        end = time.monotonic() + SECONDS
        while (found := re.search(until, log.read_text())) is None:
            if process.poll() is not None or time.monotonic() > end:
                break
            time.sleep(0.05)
        else:
            yield found[0]
    finally:
        process.send_signal(signal.SIGTERM)
        status = process.wait(SECONDS)
    if status != 128 + signal.SIGTERM:
        raise SystemExit(f"metarec {' '.join(arguments)}: status {status} after SIGTERM\n{log.read_text()}")
    print(f"{'':9}metarec {' '.join(arguments)}", flush=True)


def ask(address: str, path: str, body: Any = None) -> Any:
    """Send a request, and return the answer.

    Args:
        address: address of the service, ending in a slash.
        path: path and query, without the first slash.
        body: what is sent as JSON by POST; None sends a GET.

    Returns:
        The JSON value, or the text where it is not JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read().decode()
        return json.loads(text) if answer.headers.get_content_type() == "application/json" else text


def check_bounds(extras: Sequence[str]) -> None:
    """Compare each installed requirement with its lower bound.

    Args:
        extras: names of the extras that are installed.

    Raises:
        SystemExit: a version is above its bound, so that the bound is not the lowest that can be installed.
    """
    wrong = []
    for line in importlib.metadata.requires("metarec_jax") or []:
        wanted = Requirement(line)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        bounds = [Version(bound.version) for bound in wanted.specifier if bound.operator == ">="]
        version = importlib.metadata.version(wanted.name)
        if Version(version) not in bounds:
            wrong.append(f"{line}: the lowest version that can be installed is {version}")
    if wrong:
        raise SystemExit("\n".join(wrong))


def train() -> None:
    """Data, and runs of each kind of training."""
    rows = [
        f"u{u},i{(u * 7 + n * 11) % 40},{1 + (u + n) % 5},{1_600_000_000 + n}" for u in range(60) for n in range(25)
    ]
    Path("ratings.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows]) + "\n")
    Path("newcomers.csv").write_text("user_id,item_id,rating,timestamp\na,1,5,1\na,2,2,2\nb,3,4,1\n")
    metarec("inspect", "ratings.csv")
    metarec("data", "build", "ratings.csv", "store")
    metarec("inspect", "store")
    with background("epoch 1:", "train", *SMALL, *RANDOM, "--train.epochs", "8", "--out", "run"):
        pass  # stopped in the second epoch or later
    metarec("train", "--resume", "run")
    metarec("train", "--data.path", "ratings.csv", *SMALL[2:], *RANDOM, "--factors.rank", "2", "--out", "table")
    metarec("train", *SMALL, *RANDOM, "--encoder.train", "all", "--train.users-per-step", "16", "--out", "joint")
    metarec("train", *SMALL, *RANDOM, "--privacy.epsilon", "8", "--out", "private")
    metarec("train", *SMALL, *RANDOM, "--trace", "1", "--tracker", "tensorboard", "--out", "observed")
    metarec("pretrain", *SMALL[:2], *RANDOM, "--steps", "2", "--judge-every", "1", "--out", "words")
    metarec("pretrain", "--resume", "words")
    metarec("train", *SMALL, "--encoder.path", "words/encoder", "--out", "pretrained")
    python(SENTENCEPIECE, "pieces")
    metarec("train", *SMALL, "--encoder.path", "pieces", "--encoder.max-length", "16", "--out", "sentencepiece")
    metarec("tune", *SMALL, *RANDOM, "--trials", "2", "--out", "search")


def use() -> None:
    """What is done with a run."""
    for name in ("run", "table"):
        metarec("evaluate", name)
    metarec("evaluate", *SMALL, *RANDOM, "--protocol", "few-shot", "--seeds", "1", "--out", "few-shot")
    metarec("card", "run")
    metarec("compare", "run", "run", "--against", "item mean")
    metarec("recommend", "run", "--rate", "id:1=5", "--rate", "id:2=2", "--why")
    metarec("recommend", "run", "--users", "newcomers.csv", "--out", "lists.parquet")
    python(USERS)
    metarec("recommend", "run", "--users", "users.parquet", "--out", "lists", "--ray", "1")
    metarec("interview", "table", "--list", "--questions", "2")
    metarec("export", "run", "--out", "device")
    python(DEMO)
    service = ("--store", "store", "--port", "0", "--explore", "0.5", "--together", "2")
    with background(ADDRESS, "serve", "run", *service) as address:
        ask(address, "recommend", {"history": [{"item": "1", "rating": 5}], "k": 3})
        ask(address, "items", {"text": "A film about bees.", "id": "bees"})
        for path in ("healthz", "openapi.json", "metrics", "items?q=the", "about"):
            ask(address, path)
        metarec("simulate", "run", "--address", address, "--users", "2", "--lists", "2", "--start", "3")
    metarec("feedback", "run", "--store", "store", "--export", "log.csv", "--json")


def measure() -> None:
    """Commands that need no run."""
    for target in ("here", "v5e:1x1", "cuda:h100"):
        metarec("aot", "--target", target, "--preset", "synthetic", *RANDOM, "--items", "50", "--quick")
    metarec("bench", "--rounds", "1")
    metarec("doctor")


def main() -> None:
    """Run all, in a new folder."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    os.chdir(folder)
    os.environ |= {"METAREC_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
    check_bounds(sys.argv[2:])
    train()
    use()
    measure()


if __name__ == "__main__":
    main()
