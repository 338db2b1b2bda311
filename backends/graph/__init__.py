"""The backend's small graph: read from Relax, folded, and grouped into kernels."""
