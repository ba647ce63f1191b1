"""Metrics of rankings, ratings and clicks, with exact treatment of ties."""
