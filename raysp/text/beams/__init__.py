"""CTC beam search with n-gram language models and hot words; depends on numpy and torch alone."""
