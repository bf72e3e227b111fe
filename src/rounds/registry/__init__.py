"""Versions, the gate, champion and rollback as appended events."""
