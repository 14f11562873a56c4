"""Values as tables, lines of code, sentences and files, without a component of the page."""
