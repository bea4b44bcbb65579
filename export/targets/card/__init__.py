"""The model card: what a file and its run recorded, as Markdown."""
