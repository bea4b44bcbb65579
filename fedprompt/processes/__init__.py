"""Child processes, their logs and locks: what a server and a site both need to run for weeks."""
