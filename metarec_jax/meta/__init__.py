"""Meta-learning of any loss of a parameter tree: the inner loop with its updaters, and the outer loop.

Importing this package imports none of it: each name of ``__init__.pyi`` is imported when it is first used. The names
are those for a loss of one's own (docs/engine.md); the recommender is built from the same modules.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
