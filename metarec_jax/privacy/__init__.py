"""User-level differential privacy of training."""
