"""How a model comes in: capture, files, networks, data sets."""
