"""Who may use the dashboard: users with a role and a password, their sessions, and pauses after wrong passwords."""
