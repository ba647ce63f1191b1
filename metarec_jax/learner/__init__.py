"""Learners: functions from a user's features and an item's features to a prediction, each written for one user."""
