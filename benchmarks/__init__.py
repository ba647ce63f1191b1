"""Benchmarks: each compares our implementation with others in one interleaved run, after a check of equal results."""
