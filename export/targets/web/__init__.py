"""Write a web page that classifies photos in the browser."""

from export.targets.web.folder import write_page

__all__ = ["write_page"]
