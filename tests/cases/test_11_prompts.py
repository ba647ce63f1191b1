"""Checkpoints of sentence-transformers with prompts: `metarec train` uses them, and options set others."""

import json
from pathlib import Path

import pytest
from helpers import assert_says
from metarec_process import SMALL, write_data
from prompt_layouts import LAYOUTS, write

from metarec_jax.cli import main

QUICK = SMALL[2:]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "model", LAYOUTS["e5"])
    return *write_data(tmp_path / "data"), *QUICK, "--encoder.path", "model"


@pytest.mark.parametrize(
    ("options", "prompts", "length"),
    [
        pytest.param((), ("query: ", "passage: "), 90, marks=pytest.mark.slow),
        (("--encoder.query-prompt", "", "--encoder.document-prompt", "", "--encoder.max-length", "40"), ("", ""), 40),
        pytest.param(("--encoder.query-prompt", "user: "), ("user: ", "passage: "), 90, marks=pytest.mark.slow),
    ],
    ids=["the checkpoint's", "none", "another"],
)
def test_a_run_keeps_the_prompts_it_was_trained_with(data, options, prompts, length, capsys):
    assert main.main(["train", *data, *options, "--out", "run"]) == 0
    kept = json.loads(Path("run/config.json").read_text())["encoder"]
    assert (kept["query_prompt"], kept["document_prompt"], kept["max_length"]) == (*prompts, length)
    assert ("prompts: " in capsys.readouterr().err) == any(prompts)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (("--encoder.document-prompt", "word " * 800), ["the prompt 'word word", "max_length 90", "shorter prompt"]),
        (("--encoder.max-length", "2"), ["encoder.max_length is 2", "at least 3", "0 for the checkpoint's own"]),
        (("--encoder.max-length", "513"), ["encoder.max_length is 513", "512 positions", "--encoder.max-length 512"]),
        (("--encoder.pool-prompt", "maybe"), ["--encoder.pool-prompt", "maybe", "auto"]),
    ],
    ids=["no room for text", "too short", "too long", "no such choice"],
)
def test_mistakes_are_one_message(data, options, names, capsys):
    try:
        status = main.main(["train", *data, *options, "--out", "run"])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    message = capsys.readouterr().err
    assert_says(message, *names)
    assert len(message) < 3000
    assert not Path("run").exists()
