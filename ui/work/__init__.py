"""The steps of the work, each a function of typed values; the page and the endpoints both call these.

Whoever calls a step that takes `registry` runs it as a job, which holds the model lock.
"""
