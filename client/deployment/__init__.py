"""flower-client: a site's SuperNode, its worker, its policy and its log of what left."""
