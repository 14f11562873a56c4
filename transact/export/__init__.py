"""What leaves the project: other formats, and the proof that others can read them."""
