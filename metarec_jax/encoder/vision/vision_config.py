"""The architecture of a vision tower, and how a picture is prepared for it."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

from metarec_jax.core.errors import MetarecError
from metarec_jax.encoder.activations import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """The architecture of a vision tower; impossible values are refused."""

    kind: Literal["clip", "siglip"]
    """CLIP (Radford et al. 2021, arXiv 2103.00020): a further token, whose output is projected. SigLIP (Zhai et al.
    2023, arXiv 2303.15343): attention of a learned query to all patches."""
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    image_size: int
    """Height and width of a prepared picture, in pixels."""
    patch_size: int
    """Height and width of a patch, in pixels."""
    activation: str
    layer_norm_eps: float
    projection: int = 0
    """Width of the vector of a picture of CLIP; 0 leaves out the projection, as SigLIP does."""

    @property
    def plain(self) -> bool:
        """Whether every patch attends to all patches."""
        return True

    @property
    def patches(self) -> int:
        """Number of patches of a picture."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        """Number of tokens of a picture."""
        return self.patches + (self.kind == "clip")

    @property
    def vector_size(self) -> int:
        """Width of the vector of a picture."""
        return self.projection or self.hidden_size

    def __post_init__(self) -> None:
        sizes = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "image_size", "patch_size")
        for name in sizes:
            if getattr(self, name) < 1:
                raise MetarecError(f"vision {name} is {getattr(self, name)}; it must be at least 1")
        if self.hidden_size % self.num_heads:
            raise MetarecError(f"vision hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}")
        if self.image_size % self.patch_size:
            raise MetarecError(f"vision image_size {self.image_size} is not divisible by patch_size {self.patch_size}")
        if self.activation not in ACTIVATIONS:
            raise MetarecError(
                f"vision activation {self.activation!r} is not known; known are {', '.join(ACTIVATIONS)}"
            )
        if not 0 < self.layer_norm_eps < 1:
            raise MetarecError(f"vision layer_norm_eps is {self.layer_norm_eps}; it must be above 0 and below 1")


class Preparation(NamedTuple):
    """How a picture is prepared, as preprocessor_config.json states it.

    Attributes:
        shortest: length in pixels to which the shorter side is scaled before the centre is cut out; 0 scales both sides
            to the size of the tower.
        mean, deviation: of each colour, subtracted and divided after pixels are scaled to 0 to 1.
        resample: Pillow's number of the filter of scaling; 3 is bicubic.
    """

    shortest: int
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    resample: int = 3
