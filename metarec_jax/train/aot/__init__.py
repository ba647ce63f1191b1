"""Ahead-of-time compilation of the training step for accelerators that need not be present, and estimates of its cost.

Nothing runs. Memory, FLOPs, bytes and collectives are facts about the compiled program; cycles and all figures derived
from them are the compiler's estimates, not measurements.

    targets    names such as "v5e:2x2", and the devices that XLA compiles for
    chips      published figures of the chips
    workload   arguments of a step as shapes, without data
    hlo        analysis of a compiled program: loops weighted by their iterations
    estimate   lowering, compilation, and the resulting figures
    report     the table of estimates
"""
