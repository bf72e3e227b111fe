"""Records as self-contained pages."""
