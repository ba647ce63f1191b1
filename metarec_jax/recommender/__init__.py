"""The library that serves a trained run: adapt to a user, recommend, explain."""
