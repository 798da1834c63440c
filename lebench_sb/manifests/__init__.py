"""What stands beside a manifest: its marker."""
