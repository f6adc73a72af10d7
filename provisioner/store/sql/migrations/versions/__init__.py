"""The steps. What a step does is never changed once it was released."""
