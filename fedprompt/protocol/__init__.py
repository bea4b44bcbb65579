"""What a server and its sites agree on: addresses, certificates, invitations."""
