"""Which kernel a layer gets, and by whose word: a formula, a clock, what was found before."""
