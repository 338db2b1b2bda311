"""Deciding what is zero: scores, shares of layers, and the methods made of them."""
