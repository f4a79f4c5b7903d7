"""Files of a training in its sink: index, committed steps, log, record and exported checkpoint."""
