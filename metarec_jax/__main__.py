"""``python -m metarec_jax`` is ``metarec``."""

import sys

from metarec_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
