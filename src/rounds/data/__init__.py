"""Images to a versioned, subject-split, checked data set."""
