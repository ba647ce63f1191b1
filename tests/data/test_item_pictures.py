"""A column of pictures in an item file: vectors for item factors, and small copies for display."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import assert_says
from made_pictures import picture, save_tower

from metarec_jax.config.data import Columns, DataConfig
from metarec_jax.core.errors import MetarecError
from metarec_jax.data import load

TITLES = ["Lamp", "Chair", "Table", "Vase"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tower("siglip", tmp_path_factory.mktemp("tower") / "siglip")


@pytest.fixture
def shop(tmp_path, encoder):
    """Ratings of four items; returns a function of the item file's pictures, and of its format."""
    rows = [(u, i, 1 + (u + i) % 5, u) for u in range(3) for i in range(4)]
    lines = [",".join(map(str, row)) for row in (("user_id", "item_id", "rating", "timestamp"), *rows)]
    (tmp_path / "ratings.csv").write_text("\n".join(lines))

    def config(pictures, text: bool = False, **options) -> DataConfig:
        table = pa.table({"item_id": ["0", "1", "2", "3"], "title": TITLES, "photo": pictures})
        items = tmp_path / ("items.csv" if text else "items.parquet")
        if text:
            import pyarrow.csv

            pyarrow.csv.write_csv(table, items)
        else:
            pq.write_table(table, items)
        chosen = {"image_encoder": str(encoder), "columns": Columns(image="photo"), **options}
        return DataConfig(
            source="table",
            path=str(tmp_path / "ratings.csv"),
            items_path=str(items),
            cache=str(tmp_path / "cache"),
            **chosen,
        )

    return config


def test_bytes_paths_and_structs_give_the_same_vectors(shop, tmp_path):
    files = [picture(seed, kind="JPEG") for seed in range(2)]
    (tmp_path / "covers").mkdir()
    for number, file in enumerate(files):
        (tmp_path / "covers" / f"{number}.jpg").write_bytes(file)
    paths = ["covers/0.jpg", None, "", str(tmp_path / "covers" / "1.jpg")]
    structs = [
        {"bytes": files[0], "path": None},
        None,
        {"bytes": None, "path": None},
        {"bytes": None, "path": "covers/1.jpg"},
    ]
    found = [
        load(shop(pa.array([files[0], None, b"", files[1]], pa.binary()))).items,
        load(shop(paths)).items,
        load(shop(paths, text=True)).items,
        load(shop(structs)).items,
    ]
    for items in found:
        np.testing.assert_array_equal(items.vectors, found[0].vectors)
        assert items.pictures == found[0].pictures
        assert [items.picture(row) is None for row in range(5)] == [False, True, True, False, True]
        assert items.titles == tuple(TITLES)
        assert dict(items.details) == {}
    assert np.isnan(found[0].vectors).all(axis=1).tolist() == [False, True, True, False]
    assert len(list((tmp_path / "cache" / "pictures").iterdir())) == 1


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        ([picture(1), picture(2)[:90], None, None], ["items.parquet, row 2", "photo", "damaged", "leave it out"]),
        ([None, None, b"GIF is what this is not", None], ["row 3", "no picture of a known format"]),
        ([None, "covers/none.jpg", None, None], ["row 2", "covers/none.jpg", "No such file"]),
        ([".", None, None, None], ["row 1", "cannot be read", "folder"]),
        ([None, None, None, None], ["column 'photo' holds no picture"]),
        ([1, 2, 3, 4], ["row 1", "photo is '1'", "path of a picture"]),
    ],
    ids=["cut", "other format", "missing", "folder", "none", "numbers"],
)
def test_pictures_that_cannot_be_read_are_named(shop, pictures, words):
    with pytest.raises(MetarecError) as caught:
        load(shop(pictures))
    assert_says(str(caught.value), *words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_encoder": ""}, ["data.columns.image is 'photo'", "--data.image-encoder"]),
        ({"columns": Columns()}, ["data.image_encoder is", "--data.columns.image"]),
        (
            {"columns": Columns(image="photo", item_vector="v")},
            ["data.columns.image is 'photo'", "vectors of their own"],
        ),
        ({"columns": Columns(image="cover")}, ["no column 'cover'", "--data.columns.image NAME"]),
        ({"image_encoder": "nowhere/at-all"}, ["data.image_encoder is 'nowhere/at-all'", "CLIP or SigLIP"]),
    ],
    ids=["no tower", "no column", "two sources", "other column", "no such tower"],
)
def test_options_that_do_not_fit_are_refused(shop, options, words, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MetarecError) as caught:
        load(shop([picture(1), None, None, None], **options))
    assert_says(str(caught.value), *words)


def test_pictures_need_an_item_file(tmp_path, encoder):
    (tmp_path / "ratings.csv").write_text("user_id,item_id,rating,photo\n1,2,3,x.jpg\n")
    config = DataConfig(
        source="table", path=str(tmp_path / "ratings.csv"), image_encoder=str(encoder), columns=Columns(image="photo")
    )
    with pytest.raises(MetarecError, match=r"pictures of items need .* --data\.items-path"):
        load(config)
