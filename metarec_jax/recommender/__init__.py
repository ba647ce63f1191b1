"""Serving of a trained run as a library: adapt to a user, recommend, explain."""
