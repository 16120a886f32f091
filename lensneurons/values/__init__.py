"""The values of this package: saved, loaded, shown, and where they come from."""
