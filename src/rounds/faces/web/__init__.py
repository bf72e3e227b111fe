"""The HTTP API: parse, call, render."""
