"""What answers: the embedded sentence answerer and the interface the others share."""
