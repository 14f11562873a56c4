"""A smaller model in a given time: what is cut, how it is shared out, refitted and taught follow from size and time."""
