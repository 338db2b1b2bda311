"""From graphs with quantise and dequantise nodes to arithmetic on codes: what int8 means, bit by bit."""
