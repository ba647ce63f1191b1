"""From files of ratings or clicks to batches of episodes.

`load` reads a data set; what it returns is checked, so nothing downstream checks it again.
"""

from metarec_jax.data.sources import load

__all__ = ["load"]
