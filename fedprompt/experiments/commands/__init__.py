"""The site's commands, one file a verb."""
