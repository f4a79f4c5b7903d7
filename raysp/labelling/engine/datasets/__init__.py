"""raysp in Ray Data programs of users: steps over a dataset, and what is labelled as a dataset."""
