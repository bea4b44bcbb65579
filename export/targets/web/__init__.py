"""Write a web page that classifies photos in the browser."""

from export.targets.web.folder import write_web

__all__ = ["write_web"]
