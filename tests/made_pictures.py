"""Small vision towers of random weights, as transformers saves them, and made-up pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

SIZE, PATCH = 32, 8
KINDS = ("clip", "siglip")


def tower(kind: str, *, whole: bool = False):
    """transformers' model with a vision tower of random numbers, alone or beside a text tower."""
    import torch
    import transformers

    vision = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    vision |= {"image_size": SIZE, "patch_size": PATCH}
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "vocab_size": 30,
    }
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    if kind == "clip":
        vision |= {"projection_dim": 20}
        if whole:
            config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=20)
            model = transformers.CLIPModel(config)
        else:
            model = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**vision))
    elif whole:
        model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    else:
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**vision))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (value for value in model.parameters() if value.ndim):
            spread = 0.2 if value.ndim == 1 else min(0.5, (value.numel() / max(len(value), 1)) ** -0.5)
            value.copy_(spread * torch.randn(value.shape, generator=generator) + 0.5 * (value.ndim == 1))
    return model.eval()


def processor(kind: str):
    """transformers' preparation of pictures with Pillow."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    if kind == "clip":
        return CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    return SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE})


def save_tower(kind: str, folder: Path, *, whole: bool = False) -> Path:
    """Save a tower and its preparation; returns the folder."""
    tower(kind, whole=whole).save_pretrained(folder)
    processor(kind).save_pretrained(folder)
    return folder


def picture(seed: int, width: int = 50, height: int = 40, kind: str = "PNG") -> bytes:
    """The file of a picture of coloured noise in large squares."""
    from PIL import Image

    squares = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(squares).resize((width, height), resample=0).save(out, kind)
    return out.getvalue()
