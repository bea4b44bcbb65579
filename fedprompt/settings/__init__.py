"""Every setting of a run: one model a section, parsed once and passed whole."""
