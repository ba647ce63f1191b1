"""Checkpoints of the published kinds, small and untrained, agree with sentence-transformers; damage shows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from dense_folders import write_dense

from benchmarks import checkpoints
from metarec_jax import encoder
from metarec_jax.encoder.sentence_transformers import Hints

sys.path.insert(0, str(Path(__file__).parents[1] / "encoder"))
pytest.importorskip("sentence_transformers", reason="of the extra bench: pip install 'metarec_jax[bench]'")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What transformers saves, laid out as sentence-transformers does."""
    from test_architectures import theirs

    made = {}
    hints = {
        "bert": Hints("mean", True, prompts=(("query", "query: "), ("passage", "passage: ")), max_length=20),
        "modernbert": Hints("cls", True, prompts=(("query", "search_query: "),), max_length=20),
        "qwen3": Hints(
            "lasttoken", True, prompts=(("query", "Instruct: films\nQuery:"), ("document", "")), max_length=20
        ),
        "gemma3_text": Hints("mean", True, prompts=(("query", "task: "), ("document", "title: none ")), max_length=20),
    }
    for kind, own in hints.items():
        folder = tmp_path_factory.mktemp("theirs") / kind
        model, tokenizer = theirs(kind)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        from metarec_jax.encoder.sentence_transformers import write_hints

        write_hints(own, folder, 24)
        made[kind] = folder
    made["dense"] = write_dense(tmp_path_factory.mktemp("theirs") / "dense")
    (made["dense"] / "sentence_bert_config.json").write_text('{"max_seq_length": 128}')
    return made


@pytest.mark.parametrize(
    "kind",
    ["bert", "qwen3", "dense", *(pytest.param(k, marks=pytest.mark.slow) for k in ("modernbert", "gemma3_text"))],
)
def test_everything_agrees_row_by_row(kind, folders):
    report = checkpoints.compare(str(folders[kind]))
    assert [check for check in report.checks if not check.same] == []
    assert [row for row in report.rows if not row.same_tokens or row.difference > checkpoints.TOLERANCE] == []
    assert len(report.rows) == 2 * len(checkpoints.TEXTS)
    assert report.same
    assert f"| {folders[kind]} | {len(report.rows)} |" in checkpoints.table([report])


def test_the_first_numbers_agree_and_the_command_says_so(folders, tmp_path, capsys):
    out = tmp_path / "found.json"
    assert checkpoints.main([str(folders["dense"]), "--dims", "8", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text())
    assert {check["what"]: check["ours"] for check in found["checks"]}["dense layers"] == [
        [96, True, "tanh"],
        [40, False, "linear"],
    ]
    assert "| yes |" in capsys.readouterr().out


def test_what_differs_and_what_is_missing_is_a_line_and_a_status(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "other"
    encoder.save(encoder.load(folders["bert"]), folder)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"embedding_dimension": 24, "pooling_mode": "max"}))
    assert checkpoints.main([str(folder), "nobody/has-this"]) == 1
    out = capsys.readouterr().out
    assert "- pooling: 'mean', theirs 'max'" in out
    assert "nobody/has-this | - | - | not compared:" in out
