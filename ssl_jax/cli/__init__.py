"""What launchers do: flags, errors, processes, searches, plans."""
