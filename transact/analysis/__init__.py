"""How far scores and plans can be trusted, and what single units read."""
