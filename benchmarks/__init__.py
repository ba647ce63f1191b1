"""Benchmarks: each compares our way with another, in one interleaved run, after checking that both compute the same."""
