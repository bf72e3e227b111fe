"""The mathematics of deciding: pure functions with stated promises."""
