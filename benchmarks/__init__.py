"""Benchmarks: each compares our implementation with others in interleaved turns, after checking that results agree."""
