"""danlu: from raw data to a served, monitored model whose origin can be proved."""

from danlu._version import __version__

__all__ = ["__version__"]
