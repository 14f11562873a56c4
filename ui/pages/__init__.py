"""The parts of the page, top to bottom; each builds its components and paints them from a session.

A new part is a file here and one entry of `PAGES` in `ui/page_table.py`.
"""
