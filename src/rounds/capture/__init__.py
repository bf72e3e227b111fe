"""What was asked and answered, and the labels that come later."""
