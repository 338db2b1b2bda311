"""The kernels: one family to a file, each a function from a specification to a TIR function."""
