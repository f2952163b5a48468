"""Pages to look at what is stored, rendered here and served at `/` of the HTTP port.

Loaded when the first page is asked for. What a page shows and changes are calls of who has signed
in, in process, as over any other door.
"""
