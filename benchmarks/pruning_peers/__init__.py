"""What `peers.py` compares: networks through Torch-Pruning, and through reconvene with the same channels gone."""
