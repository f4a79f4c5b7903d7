"""The outputs of a `Label` step, with their settings. `ops` implements them and is imported on the worker."""
