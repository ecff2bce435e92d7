"""The tables that ship, <gpu>.json: written by `fastconv tune --export` from times measured on that GPU, none by hand."""
