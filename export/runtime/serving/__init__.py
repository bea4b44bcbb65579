"""Answer over HTTP with a classifier file: the service of a site that has no Triton."""
