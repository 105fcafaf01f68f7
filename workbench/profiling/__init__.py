"""Where the time and the memory of a training update or of sampling go (``workbench profile``)."""
