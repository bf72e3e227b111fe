"""Networks and their names."""
