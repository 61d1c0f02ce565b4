"""The work: from the user's objects to finished runs."""
