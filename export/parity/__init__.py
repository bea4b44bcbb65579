"""Compare a graph with torch: at export, and again wherever the file is used."""
