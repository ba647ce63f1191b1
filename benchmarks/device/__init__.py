"""What the package reaches on the device that JAX finds, within a few minutes: see `benchmarks.device.__main__`."""

from benchmarks.device.stand_ins import add_missing

add_missing()
