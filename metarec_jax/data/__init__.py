"""Data sets of ratings or clicks: reading, checks, divisions, and batches of episodes.

`load` reads a data set and checks it; no other room checks it again.
"""

from metarec_jax.data.sources import load

__all__ = ["load"]
