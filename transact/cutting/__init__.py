"""A plan carried out on a model: as a reversible mask, or as smaller weights."""
