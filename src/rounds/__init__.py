"""Rounds: the whole life of an image classifier, with a stated error rate for every decision."""
