"""Compiled code: kernels and bytecode without weights, weights beside them, and what runs both."""
