"""Product metadata as hubs serve it: lists of words become details, other values that are no text are left out."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trained import small_config

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.data import load
from metarec_jax.train.start import meta_train

IDS = [f"B0{n:08d}" for n in range(20)]
META = {
    "parent_asin": IDS,
    "title": [f"Lamp {n}" for n in range(20)],
    "average_rating": [4.1] * 20,
    "description": [["One sentence.", "Another."]] * 20,
    "categories": [["Home", "Lamps"]] * 19 + [None],
    "paths": [[["Home", "Lamps"], ["Gifts"]]] + [[]] * 19,
    "images": [{"large": "x"}] * 20,
    "sizes": [[1, 2]] * 20,
}


@pytest.fixture(params=["parquet", "large parquet", "jsonl"])
def config(request, tmp_path):
    """Ratings and nested metadata, in a file of each kind."""
    rows = "".join(f"u{u},{IDS[i]},{1 + (u + i) % 5},{1_400_000_000_000 + i}\n" for u in range(12) for i in range(20))
    (tmp_path / "r.csv").write_text(f"user_id,parent_asin,rating,timestamp\n{rows}")
    items = tmp_path / "meta.file"
    if request.param == "jsonl":
        rows = [dict(zip(META, values)) for values in zip(*META.values())]
        items.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        table = pa.table(META)
        if request.param == "large parquet":
            kind = pa.large_list(pa.large_string())
            for name in ("description", "categories"):
                table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(kind))
        pq.write_table(table, items)
    columns = Columns(item="parent_asin", item_text="title")
    return DataConfig(path=str(tmp_path / "r.csv"), items_path=str(items), columns=columns)


def test_lists_of_words_are_details_and_what_is_no_text_is_left_out(config):
    data = load(config)
    details = data.items.details
    assert details["description"][0] == "One sentence., Another."
    assert (details["categories"][0], details["categories"][-1]) == ("Home, Lamps", "")
    assert (details["paths"][0], details["paths"][1]) == ("Home, Lamps, Gifts", "")
    assert set(details) == {"average_rating", "description", "categories", "paths"}
    assert any("left out, since they hold neither text nor numbers: images, sizes" in note for note in data.notes)


@pytest.mark.parametrize("config", ["parquet"], indirect=True)
def test_a_run_trains_on_them(config, tmp_path):
    small = small_config()
    config = dataclasses.replace(
        small,
        data=config,
        episodes=dataclasses.replace(small.episodes, min_ratings=8, query=5, validation=0.2, test=0.2),
        train=dataclasses.replace(small.train, epochs=1),
        learner=dataclasses.replace(small.learner, user_side="none"),
    )
    meta_train(config, tmp_path / "run")
    assert (tmp_path / "run" / "parameters.safetensors").exists()
