"""Graph to machine: targets, kernels, the TVM pipeline, measurement."""
