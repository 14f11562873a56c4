"""How things look: numbers as people read them, names of choices, colours and fonts."""
