"""Command line and HTTP: parse, call, render."""
