"""How fastconv's compiled modules are built: see docs/build.md. Needs setuptools, pybind11 and ninja, never torch."""
