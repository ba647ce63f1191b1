"""Training of a run from a config: build, step, loop, run folder."""
