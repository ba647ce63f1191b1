"""Evaluation: baselines, paired comparisons, tables and plots."""
