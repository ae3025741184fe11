"""A distribution that can't be imported."""

raise RuntimeError("its own dependency is missing")
