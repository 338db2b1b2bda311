"""Portfolios: variants of one network, from large to small, in one folder."""
