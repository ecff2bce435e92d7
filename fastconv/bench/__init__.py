"""The benchmark harness: suites of real layers, honest timing, baselines, reports and comparisons.

`fastconv bench` drives it. `runner` goes through the cases, `measurement` times one call, `guards` is what a dishonest call
runs into, `results` is the file format, `report` turns a file into tables and figures, `comparison` sets two files side by
side. On a machine without a GPU `prediction` takes the place of `measurement`.
"""
