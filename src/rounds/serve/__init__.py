"""Micro-batching, admission and hot swap."""
