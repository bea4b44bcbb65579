"""Turn the folder of a run into one self-contained HTML page."""
