"""flower-server: the SuperLink, its certificates, its sites and the run, from one folder."""
