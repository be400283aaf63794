"""One file a method: ``get_config(arg)`` returns the config of a run."""
