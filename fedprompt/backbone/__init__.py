"""The frozen CLIP and the only door to open_clip."""
