"""Planning: the pieces to do, from a pipeline, a listing of its corpus and the state of its sink, without Ray."""
