"""A run of relative paths is found and asked from anywhere, and says where its data was if that has moved."""

import pytest
from cases.metarec_process import SMALL, metarec, write_data

from metarec_jax import encoder


@pytest.mark.slow
def test_a_run_of_relative_paths_is_used_from_another_folder_and_after_a_move(tmp_path):
    before, after, link = tmp_path / "before", tmp_path / "after", tmp_path / "link"
    write_data(before)
    encoder.save(encoder.random_encoder(), before / "enc")
    options = ("--data.path", "ratings.csv", "--data.items-path", "items.csv", *SMALL, "--encoder.path", "enc")
    status, _, err = metarec("train", *options, "--out", "run", cwd=before)
    assert status == 0, err
    lamp = ("--rate", "id:1=5", "-k", "1", "--item-text", "A new lamp")
    status, out, err = metarec("recommend", before / "run", *lamp, cwd=tmp_path)
    assert (status, "A new lamp" in out) == (0, True), err
    before.rename(after)
    link.symlink_to(after / "run")
    status, _, err = metarec("recommend", "link", *lamp, cwd=tmp_path)
    assert status == 2
    for words in (f"'{before / 'enc'}'", "nothing is there", "--encoder.path NEW"):
        assert words in err
    status, out, err = metarec("recommend", "link", *lamp, "--encoder.path", "after/enc", cwd=tmp_path)
    assert (status, "A new lamp" in out) == (0, True), err
    for command in ("evaluate link", "train --resume link"):
        status, _, err = metarec(*command.split(), cwd=tmp_path)
        assert (status, f"'{before / 'ratings.csv'}'" in err, "--data.path NEW" in err) == (2, True, True), err
    places = ("--data.path", "after/ratings.csv", "--data.items-path", "after/items.csv", "--encoder.path", "after/enc")
    status, _, err = metarec("train", "--resume", "link", *places, cwd=tmp_path)
    assert status == 0, err
    status, out, err = metarec("recommend", "after/run", *lamp, cwd=tmp_path)  # the run keeps the new places
    assert (status, "A new lamp" in out) == (0, True), err
