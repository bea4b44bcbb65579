"""Learn the sites' mean without any site's own update, by Flower's SecAgg+ (F29)."""
