"""Which memories an agent should see: storage's sessions, put in recall's order."""
