"""`metarec pretrain` from the command line, and `metarec train` with what it made."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from metarec_jax.cli import main
from metarec_jax.cli.pretrain import starting_pretraining
from metarec_jax.config.pretrain import PretrainConfig
from metarec_jax.train import run_folder

SMALL = (
    "--preset", "synthetic", "--encoder.max-length", 32, "--mlm.tokens-per-step", 256,
    "--contrastive.users-per-step", 4,
    "--contrastive.liked-per-user", 4, "--devices", 1, "--steps", 4, "--judge-every", 2,
)  # fmt: skip
TRAIN = (
    "--preset", "synthetic", "--encoder.max-length", 32, "--train.epochs", 1, "--train.users-per-step", 160,
    "--train.devices", 1, "--learner.user-side", "none", "--updater.steps", 1,
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a pretraining in `words`, and what it printed."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main.main([str(a) for a in ("pretrain", *SMALL, "--out", "words")]) == 0
    return folder


@pytest.fixture
def metarec(place, monkeypatch, capsys):
    """Runs a command there; returns its status, stdout and stderr."""
    monkeypatch.chdir(place)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = main.main([str(argument) for argument in arguments])
        return (status, *capsys.readouterr())

    return run


def test_the_encoder_is_an_ordinary_folder_and_trains_a_run(metarec):
    import transformers

    assert {path.name for path in Path("words/encoder").iterdir()} == {
        "config.json", "model.safetensors", "pretraining.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
        "modules.json", "1_Pooling",
    }  # fmt: skip
    masked = transformers.AutoModelForMaskedLM.from_pretrained("words/encoder")
    assert type(masked).__name__ == "BertForMaskedLM"
    assert np.isfinite(masked.state_dict()["cls.predictions.bias"].numpy()).all()
    status, out, _ = metarec("train", *TRAIN, "--encoder.path", "words/encoder", "--out", "run", "--json")
    assert status == 0
    assert json.loads(out)["finished"]


def test_what_it_has_seen_is_no_ones_test(metarec):
    """Another seed splits the users another way: then the encoder knows what test users did."""
    status, out, err = metarec("train", *TRAIN, "--encoder.path", "words/encoder", "--out", "leak", "--seed", 1)
    assert (status, out) == (2, "")
    assert "was pretrained, with seed 0, on" in err
    assert "test users" in err
    assert not Path("leak").exists()
    status, out, err = metarec("pretrain", *SMALL, "--encoder.path", "words/encoder", "--out", "leak", "--seed", 1)
    assert (status, out) == (2, "")
    assert "was pretrained, with seed 0, on" in err
    assert not Path("leak").exists()


def test_a_finished_one_resumes_to_the_same_result_as_json(metarec):
    status, out, _ = metarec("pretrain", "--resume", "words", "--json")
    assert status == 0
    tree = json.loads(out)
    assert tree["step"] == 4
    assert tree["encoder"] == "words/encoder"
    assert Path(tree["plot"]).stat().st_size > 1000
    assert tree["before"].keys() == tree["after"].keys() == {
        "perplexity_users", "perplexity_items", "contrastive_users", "contrastive_items",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pretrain", "--resume", "words", "--steps", 9), ["--resume takes no option"]),
        (("pretrain", "--resume", "nothing"), ["nothing is not a run folder", "metarec pretrain --out"]),
        (("pretrain", *SMALL, "--out", "words"), ["already holds a run", "metarec pretrain --resume words"]),
        (("train", "--resume", "words"), ["words is a run of `metarec pretrain`", "not of `metarec train`"]),
        (("evaluate", "words"), ["words is a run of `metarec pretrain`"]),
        (("recommend", "words"), ["words is a run of `metarec pretrain`"]),
        (("pretrain", *SMALL, "--held-out", 1), ["held_out is 1"]),
        (("pretrain", *SMALL, "--encoder.max-length", 513), ["max_length is 513", "512"]),
        (("pretrain", *SMALL, "--encoder.train", "no"), ["encoder.train is 'no'"]),
    ],
    ids=lambda value: " ".join(map(str, value[:3])) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_message(metarec, arguments, words):
    status, out, err = metarec(*arguments)
    assert (status, out) == (2, "")
    assert "Traceback" not in err
    assert all(word in err for word in words)


def test_the_config_of_a_pretraining_can_be_given_again(metarec):
    name, config = starting_pretraining(["--config", "words/config.json"])
    assert name == "config"
    assert config == run_folder.open_run(Path("words"), command="pretrain", base=PretrainConfig()).config
    assert (config.steps, config.mlm.tokens_per_step, config.encoder.path) == (4, 256, "random")
