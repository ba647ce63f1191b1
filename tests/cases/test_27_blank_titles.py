"""Titles that are missing, and titles that a terminal could take for commands, from a file to what is printed."""

import dataclasses
import json

import pytest
from trained import small_config

from metarec_jax.cli.main import main
from metarec_jax.config.data import DataConfig
from metarec_jax.core.console import printable
from metarec_jax.data import load
from metarec_jax.train.start import meta_train

TITLES = {
    3: "[rec]",
    5: "",
    6: "   ",
    7: "\t\u00a0",
    8: '"line one\nline two"',
    9: "[/bold red] \x1b[31mX\x07",
    10: "\x9b31mY \u202eZ",
}
UNSAFE = ("\x1b", "\x07", "\x9b", "\u202e")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on items with these titles, of which the last has no text either."""
    folder = tmp_path_factory.mktemp("titles")
    items = "".join(f"{i},{TITLES.get(i, f'Film {i}')},A story about {i}. It goes on.\n" for i in range(20))
    (folder / "items.csv").write_text(f"item_id,title,text\n{items}20,,\n")
    rows = "".join(f"u{u},{i},{1 + (u * i) % 5}\n" for u in range(12) for i in range(21))
    (folder / "r.csv").write_text(f"user_id,item_id,rating\n{rows}")
    small = small_config()
    config = dataclasses.replace(
        small,
        data=DataConfig(path=str(folder / "r.csv"), items_path=str(folder / "items.csv")),
        episodes=dataclasses.replace(small.episodes, min_ratings=8, query=5, validation=0.2, test=0.2),
        train=dataclasses.replace(small.train, epochs=1),
        factors=dataclasses.replace(small.factors, rank=2),
        learner=dataclasses.replace(small.learner, user_side="none"),
    )
    meta_train(config, folder / "run")
    return folder


@pytest.mark.slow
def test_a_blank_title_is_the_beginning_of_the_text_or_the_id(folder):
    data = load(DataConfig(path=str(folder / "r.csv"), items_path=str(folder / "items.csv")))
    titles = dict(zip(data.items.ids, data.items.titles))
    assert [titles[i] for i in ("3", "5", "6", "7")] == [
        "[rec]",
        "A story about 5",
        "A story about 6",
        "A story about 7",
    ]
    assert titles["20"] == "20"
    assert any("3 titles are blank" in note for note in data.notes)


def test_no_cell_is_empty_and_no_command_reaches_the_terminal(folder, capsys):
    run = str(folder / "run")
    assert main(["recommend", run, "--rate", "id:1=5", "--rate", "id:9=3", "-k", "20"]) == 0
    printed = capsys.readouterr().out
    for title in (
        "[rec]",
        "A story about 5",
        "A story about 6",
        "line one line two",
        r"[/bold red] \x1b[31mX\x07",
        r"\x9b31mY",
    ):
        assert title in printed
    assert main(["interview", run, "--list", "-k", "10"]) == 0
    printed += capsys.readouterr().out
    assert main(["inspect", str(folder / "r.csv"), "--data.items-path", str(folder / "items.csv")]) == 0
    printed += capsys.readouterr().out
    assert main(["recommend", run, "--rate", "\x1b[31mX\u202e=5"]) in (0, 2)
    printed += "".join(capsys.readouterr())
    for character in UNSAFE:
        assert character not in printed


def test_titles_are_whole_in_json_and_can_be_rated(folder, capsys):
    run = str(folder / "run")
    command = ["recommend", run, "--rate", "[rec]=5", "--rate", "A story about 5=2", "-k", "19", "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in found["rated"]] == ["3", "5"]
    assert {one["id"]: one["title"] for one in found["recommended"]}["9"] == TITLES[9]


def test_text_without_commands_is_printed_as_it_is():
    assert printable("Été, 東京\t[b]\n🎬") == "Été, 東京\t[b]\n🎬"
