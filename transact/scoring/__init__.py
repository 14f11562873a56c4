"""How much each head, head group and channel matters."""
