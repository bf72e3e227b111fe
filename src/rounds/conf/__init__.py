"""Hydra groups over the core specs; overrides become frozen specs."""
