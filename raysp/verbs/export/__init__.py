"""Export of the label shards of a finished sink in the formats that other tools read."""
