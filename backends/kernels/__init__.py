"""The schedule library: one family of kernels to a file, each a function from a specification to a TIR
function.
"""
