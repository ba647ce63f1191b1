"""``python -m metarec_jax`` is ``metarec``."""

from metarec_jax.cli.process import run

if __name__ == "__main__":
    run()
