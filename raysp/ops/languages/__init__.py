"""Labels of rows of several languages by one checkpoint."""
