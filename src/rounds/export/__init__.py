"""Weights to bundle."""
