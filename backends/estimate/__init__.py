"""What a program costs on a machine that is not here: instructions, cycles, cache misses, milliseconds."""
