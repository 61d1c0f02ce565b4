"""The one place of the version, beside pyproject.toml."""

__version__ = "0.1.0"
