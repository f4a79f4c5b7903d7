"""The report of a sink of labels: figures of its rows, aggregated as they are read, and of its runs."""
