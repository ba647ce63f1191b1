"""Ahead of time: the step that trains, compiled for accelerators that need not be here, and what the compiler says.

Nothing runs. Memory, FLOPs, bytes and collectives are facts about the compiled program; cycles, and all that follows
from them, are the compiler's estimates and no measurement.

    targets    names such as "v5e:2x2", and the devices that XLA compiles for
    chips      published figures of the chips
    workload   sizes of a step that has no data yet: all arguments, as shapes
    hlo        reading a compiled program: loops weighted by their turns
    estimate   lowering, compiling, and the figures together
    show       the table for people
"""
