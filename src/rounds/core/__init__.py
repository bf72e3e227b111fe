"""Rounds: the whole life of an image classifier."""
