"""A data source, a layout of files and a split from outside the package, registered and then named in a config."""

import subprocess
import sys
import textwrap

import layouts

OUTSIDE = """
    import dataclasses, sys
    import numpy as np
    from metarec_jax.config.run import Config, from_json
    from metarec_jax.data import load
    from metarec_jax.data.protocols import Division, divide, register_split
    from metarec_jax.data.sources import register_layout, register_source
    from metarec_jax.data.sources.movielens_100k import read as read_100k
    from metarec_jax.data.sources.synthetic import synthetic
    from metarec_jax.data.protocols.users import divide as divide_users

    @register_source("few")
    def few(config, seed):
        return synthetic(seed, users=30, items=40, kind=config.kind)[0]

    @register_layout("films", title="Films", marks=("films.*",), options=("repeats",))
    def films(folder, *, source, repeats):
        print(repeats)
        return dataclasses.replace(read_100k(folder, source=source), citation=folder.read("films.txt").data[:].decode())

    @register_split("mine")
    def mine(data, split, config, seed):
        return divide_users(data, split, config, seed)._replace(description="mine")

    config = from_json('{"data": {"source": "few"}, "split": {"kind": "mine"}}', where="outside")
    data = load(config.data, seed=2)
    print(len(data.users), divide(data, config, 2).description)
    films = '{"data": {"source": "films", "path": "%s", "repeats": "latest"}}'
    config = from_json(films % sys.argv[1], where="outside")
    found = load(config.data)
    print(len(found), found.source == f"Films from {sys.argv[1]}", found.citation)
    try:
        from_json('{"data": {"source": "fims"}}', where="outside")
    except Exception as error:
        print(error)
"""


def test_kinds_from_outside_are_used_by_their_names(tmp_path):
    folder = layouts.movielens_100k(tmp_path / "films")
    (folder / "films.txt").write_text("Invented")
    program = [sys.executable, "-c", textwrap.dedent(OUTSIDE), str(folder)]
    run = subprocess.run(program, capture_output=True, text=True)
    assert run.stdout.splitlines() == [
        "30 mine",
        "latest",
        "5 True Invented",
        "outside: data.source is 'fims'; it must be one of 'auto', 'movielens-100k', 'movielens-1m', "
        "'movielens-latest', 'movietweetings', "
        "'recbole', 'mind', 'amazon', 'goodreads', 'book-crossing', 'lastfm', 'row-store', 'table', "
        "'synthetic', 'few', 'films'; did you mean 'films'?",
    ], run.stderr
