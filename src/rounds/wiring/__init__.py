"""Settings to open ports."""
