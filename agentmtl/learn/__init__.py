"""Training recipes for what ships with the package."""
