"""What stays and what goes: how many units each layer keeps, and which."""
