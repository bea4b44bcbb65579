"""The site: keep images here, tune the prompt, send what was trained."""
