"""What `switching.py` measures: the server under load with switches, and ways to do without them."""
