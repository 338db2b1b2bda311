"""Post-training quantisation to 8-bit integers: what is rounded, by which scales, and what that costs."""
