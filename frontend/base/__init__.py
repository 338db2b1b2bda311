"""What every part stands on: errors, files that others wrote, what is said meanwhile, what is kept between runs."""
