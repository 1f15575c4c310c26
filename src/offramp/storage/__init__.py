"""What is written to disk: whole files and folders, named arrays, manifests."""
