"""From a prompt artefact to the constants that a graph is made of."""
