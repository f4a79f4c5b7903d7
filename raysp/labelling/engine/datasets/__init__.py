"""raysp in Ray Data programs of users: steps over a dataset, and labels as a dataset."""
