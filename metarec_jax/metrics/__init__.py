"""Metrics of rankings, ratings and clicks, exact about ties."""
