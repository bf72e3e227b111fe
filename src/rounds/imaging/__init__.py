"""Bytes to pixels: decode, fit, measure, corrupt, draw, and the packed files that data sets are kept in."""
