"""What keeps things: blobs, rows, runs, memory."""
