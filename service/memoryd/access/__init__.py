"""Who may do what: credentials, and what they are checked against."""
