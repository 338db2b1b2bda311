"""Serving a portfolio: one variant in memory, which another can replace between two requests."""
