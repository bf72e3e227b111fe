"""A bundle measured as it is served."""
