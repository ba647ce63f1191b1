"""Benchmarks: each compares our implementation with others in one interleaved run, after checking that results agree."""
