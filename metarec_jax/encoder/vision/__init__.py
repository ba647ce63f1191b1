"""Vision towers of CLIP and SigLIP in JAX: pictures as vectors."""

from metarec_jax.encoder.vision.checkpoint import Vision, load_vision
from metarec_jax.encoder.vision.picture_table import PictureTable, encode_pictures
from metarec_jax.encoder.vision.pictures import PictureError, read_picture
from metarec_jax.encoder.vision.tower import encode_pixels, param_shapes, states_of
from metarec_jax.encoder.vision.vision_config import Preparation, VisionConfig

__all__ = [
    "PictureError",
    "PictureTable",
    "Preparation",
    "Vision",
    "VisionConfig",
    "encode_pictures",
    "encode_pixels",
    "load_vision",
    "param_shapes",
    "read_picture",
    "states_of",
]
