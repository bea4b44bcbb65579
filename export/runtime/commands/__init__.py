"""The commands of this application, one file each; heavy imports wait until a command runs."""
