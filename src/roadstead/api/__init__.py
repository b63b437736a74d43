"""For programs: ``roadstead.Client``, ``roadstead.AsyncClient`` and ``roadstead.Executor``.

What they do is docs/python.md's.  They know an engine as a ``Session`` (engines/session.py) and
nothing else of it.
"""
