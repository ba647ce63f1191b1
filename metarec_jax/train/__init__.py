"""From a config to a trained run: build, step, loop, run folder."""
