"""Per-layer choice: what was measured on this GPU, else a table that ships with the package, else the cost model.

`choice.choose` is what dispatch asks. `tune` measures candidates and keeps the times in `store`, on disk, by GPU, driver,
versions and problem. The environment variable FASTCONV_TUNE steers both:

===== ==================================================================================================================
unset measured times and tables are used; nothing is measured inside a call
0     neither is read nor written: cost model alone
1     a problem without measured times is measured the first time that `auto` meets it, and kept
force as 1, and each problem is measured once more by each process
===== ==================================================================================================================
"""
