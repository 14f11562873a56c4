"""What the reference is built from, and a notebook that walks the main way."""
