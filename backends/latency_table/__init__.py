"""Times of layers with zeros, for a target: by the layer's shape as kernels see it, the structure, and the share of zeros."""
