"""The parts of the page, top to bottom; each builds its components and paints them from a session."""
