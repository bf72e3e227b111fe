"""Live films against the bundle's reference."""
