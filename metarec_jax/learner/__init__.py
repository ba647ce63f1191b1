"""Learners: a user's features and an item's features in, a prediction out. Each is written for one user."""
