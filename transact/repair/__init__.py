"""Making up for what is cut, without training. Below planning and cutting, as `search_plan` and `prune` call it.

`repairs.REPAIRS` is the table of repairs; each is one file here and one entry there.
"""
