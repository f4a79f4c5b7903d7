"""What there is to do: a pipeline, a listing of its corpus and what a sink holds, made into pieces, without Ray."""
