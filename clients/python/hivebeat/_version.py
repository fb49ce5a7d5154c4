"""The version of the package: of the release that it belongs to, not of the wire."""

__version__ = "0.1.0"
