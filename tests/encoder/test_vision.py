"""Vision towers: the numbers of transformers at every layer, its preparation of pictures, and what is refused."""

from __future__ import annotations

import json
import struct
import zlib

import jax
import numpy as np
import pytest
from helpers import assert_close, assert_each_close, assert_says
from made_pictures import KINDS, SIZE, picture, processor, save_tower, tower
from safetensors.numpy import load_file, save_file

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.vision import (
    PictureError,
    encode_pictures,
    encode_pixels,
    load_vision,
    read_picture,
    states_of,
)
from metarec_jax.encoder.vision.pictures import prepare, small_copy


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_tower(kind, tmp_path_factory.mktemp("towers") / kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", [False, True], ids=["alone", "beside a text tower"])
def test_every_layer_and_the_vector_have_the_numbers_of_transformers(kind, whole, tmp_path):
    import torch

    vision = load_vision(str(save_tower(kind, tmp_path / "tower", whole=whole)))
    model = tower(kind, whole=whole)
    pixels = np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    theirs = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    with torch.no_grad():
        inner = getattr(model, "vision_model", model)
        output = inner(pixel_values=theirs, output_hidden_states=True)
        wanted = model.visual_projection(output.pooler_output) if kind == "clip" else output.pooler_output
    vectors, states = jax.jit(states_of, static_argnums=1)(vision.params, vision.config, pixels)
    assert len(states) == len(output.hidden_states) == 3
    for ours, other in zip(states, output.hidden_states):
        assert_close(np.asarray(ours), other.numpy())
    assert_close(np.asarray(vectors), wanted.numpy())
    unit = wanted.numpy() / np.linalg.norm(wanted.numpy(), axis=1, keepdims=True)
    assert_close(np.asarray(encode_pixels(vision.params, vision.config, pixels)), unit)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(50, 40), (40, 51), (32, 32), (7, 9), (300, 33)], ids=str)
def test_pictures_are_prepared_as_transformers_does(kind, size, folders):
    vision = load_vision(str(folders[kind]))
    image = read_picture(picture(1, *size))
    wanted = processor(kind)(image, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    found = prepare(image, vision.preparation, vision.config.image_size)
    assert_each_close(found, wanted, floor=1e-5, because="the same pixels, standardised in another order")


def test_equal_pictures_are_encoded_once_and_the_table_is_kept(folders, tmp_path):
    vision = load_vision(str(folders["siglip"]))
    files = [picture(1), None, picture(2, kind="JPEG"), picture(1)]
    read = [None if file is None else (lambda file=file: file) for file in files]

    def refuse(row, message):
        return MetarecError(f"row {row}: {message}")

    first, again = (encode_pictures(vision, read, refuse, tmp_path) for _ in range(2))
    assert len(list(tmp_path.iterdir())) == 1
    for table in (first, again):
        assert [np.isnan(row).any() for row in table.vectors] == [False, True, False, False]
        np.testing.assert_array_equal(table.vectors[0], table.vectors[3])
        assert np.abs(table.vectors[0] - table.vectors[2]).max() > 1e-3
        assert table.small[1] is None
        assert table.small[0] == table.small[3]
        assert read_picture(table.small[2]).size == (50, 40)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert first.small == again.small
    next(tmp_path.iterdir()).write_bytes(b"damaged")
    np.testing.assert_array_equal(encode_pictures(vision, read, refuse, tmp_path).vectors, first.vectors)
    read[2] = lambda: picture(2)[:60]
    with pytest.raises(MetarecError, match=r"^row 2: the picture is damaged"):
        encode_pictures(vision, read, refuse, tmp_path)


def claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header states a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (b"IHDR" + header, b"IDAT" + zlib.compress(b""), b"IEND")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"", ["empty"]),
        (b"hello", ["no picture of a known format", "JPEG"]),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ["no picture of a known format"]),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', ["no picture of a known format"]),
        (picture(1)[:-40], ["damaged"]),
        (picture(1, kind="JPEG")[:300], ["damaged"]),
        (claims(9_000, 9_000), ["9,000 x 9,000 pixels", "at most 50,000,000"]),
        (claims(60_000, 60_000), ["far more than 50,000,000 pixels"]),
        (claims(65, 1), ["65 x 1 pixels", "64 times"]),
        (claims(8, 8), ["damaged"]),
    ],
    ids=[
        "empty",
        "text",
        "eps",
        "svg",
        "cut png",
        "cut jpeg",
        "many pixels",
        "too many for Pillow",
        "too long",
        "header alone",
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(file, words):
    with pytest.raises(PictureError) as caught:
        read_picture(file)
    assert_says(str(caught.value), *words)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_pictures_of_other_colours_are_read_as_rgb(mode):
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new(mode, (9, 7)).save(out, "PNG")
    image = read_picture(out.getvalue())
    assert (image.mode, image.size) == ("RGB", (9, 7))


def test_a_picture_is_turned_as_its_metadata_says_and_its_small_copy_has_none():
    import io

    from PIL import Image

    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (500, 200)).save(out, "JPEG", exif=exif)
    image = read_picture(out.getvalue())
    assert image.size == (200, 500)
    small = Image.open(io.BytesIO(small_copy(image)))
    assert (small.size, small.format, dict(small.getexif())) == ((96, 240), "JPEG", {})


def edited(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def without(path, name):
    tensors = load_file(path)
    del tensors[next(own for own in tensors if own.endswith(name))]
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("kind", "damage", "words"),
    [
        ("clip", lambda f: edited(f / "config.json", model_type="blip"), ["config.json", "'blip'", "siglip"]),
        ("clip", lambda f: edited(f / "config.json", auto_map={"AutoModel": "x.Y"}), ["code of its own"]),
        ("clip", lambda f: edited(f / "config.json", hidden_size="24"), ["hidden_size is '24'"]),
        ("clip", lambda f: edited(f / "config.json", num_attention_heads=5), ["24", "num_heads 5"]),
        ("clip", lambda f: edited(f / "config.json", patch_size=5), ["image_size 32", "patch_size 5"]),
        ("clip", lambda f: edited(f / "config.json", hidden_act="swoosh"), ["'swoosh'"]),
        ("clip", lambda f: edited(f / "config.json", image_size=64), ["position_embedding.weight", "config.json"]),
        ("siglip", lambda f: edited(f / "config.json", vision_use_head=False), ["pooling head"]),
        ("siglip", lambda f: edited(f / "config.json", num_hidden_layers=3), ["no tensor encoder.layers.2."]),
        ("siglip", lambda f: without(f / "model.safetensors", "head.probe"), ["no tensor head.probe"]),
        ("clip", lambda f: cut(f / "model.safetensors"), ["model.safetensors", "damaged"]),
        ("clip", lambda f: (f / "model.safetensors").unlink(), ["model.safetensors is missing"]),
        ("clip", lambda f: (f / "config.json").unlink(), ["config.json is missing"]),
        ("clip", lambda f: edited(f / "preprocessor_config.json", size={"shortest_edge": 8}), ["shortest edge", "32"]),
        ("clip", lambda f: edited(f / "preprocessor_config.json", image_std=[0, 1]), ["three numbers"]),
    ],
    ids=range(15),
)
def test_towers_that_do_not_fit_are_refused_by_file_and_value(kind, damage, words, folders, tmp_path):
    folder = tmp_path / "tower"
    folder.mkdir()
    for file in folders[kind].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    damage(folder)
    with pytest.raises(MetarecError) as caught:
        load_vision(str(folder))
    assert_says(str(caught.value), str(folder), *words)


def test_a_folder_without_a_preparation_takes_that_of_its_family(folders):
    for kind, folder in folders.items():
        stated = load_vision(str(folder)).preparation
        (folder / "preprocessor_config.json").rename(folder / "aside.json")
        assert load_vision(str(folder)).preparation == stated, kind
        (folder / "aside.json").rename(folder / "preprocessor_config.json")
