"""What was found, as reports, pages and figures."""
