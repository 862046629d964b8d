"""Objects out: encoded once into the outbox, resent as they are until each destination has them."""
