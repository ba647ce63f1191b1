"""Few-shot characters at a smoke size: classes are disjoint, pictures are of characters, and methods beat chance."""

import json

import numpy as np
import pytest

from benchmarks import characters


def test_pictures_are_of_different_characters_and_no_class_is_in_two_parts():
    drawn = characters.pictures(most=120)
    train, validation, test = (part[:, 0] for part in drawn)
    assert len(train) + len(validation) + len(test) > 80
    assert len(validation) > 10
    everything = np.concatenate([train, validation, test])
    assert len({picture.round(1).tobytes() for picture in everything}) == len(everything)
    assert drawn.train.shape[1:] == (len(characters.FONTS), characters.SIDE**2)
    assert (drawn.train.max(axis=-1) > 0.4).all(), "every picture has ink"
    assert drawn.train.min() >= 0
    assert drawn.train.max() <= 1
    between = np.abs(drawn.train[:, 0] - drawn.train[:, 1]).mean()  # one character in two fonts
    across = np.abs(drawn.train[1:, 0] - drawn.train[:-1, 0]).mean()  # two characters in one font
    assert between < 0.8 * across


@pytest.mark.slow
def test_every_method_learns_more_than_chance(tmp_path, capsys):
    written = tmp_path / "characters.json"
    sizes = ["--iterations", "150", "--test-tasks", "50", "--classes", "150"]
    characters.main([*sizes, "--json", str(written), "--plot", str(tmp_path / "classes.png")])
    document = json.loads(written.read_text())
    (panel,) = document["panels"]
    assert set(panel["values"]) == {*characters.methods(), characters.TWIN}
    for name, (one, five) in panel["values"].items():
        assert one > 0.3, name
        assert five > 0.4, name
    assert set(document["facts"]["twin"]) == {"1-shot", "5-shot"}
    assert "| ProtoNet |" in capsys.readouterr().out
