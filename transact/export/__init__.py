"""A model for other software: a module a format, with the function that writes it and a report of what was written."""
