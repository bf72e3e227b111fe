"""What the house promises, measured: python -m bench.NAME, or all of them with make bench."""
