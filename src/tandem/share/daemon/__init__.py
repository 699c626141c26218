"""The service: submissions in, steps stored, instructions carried out; and the client that speaks to it."""
