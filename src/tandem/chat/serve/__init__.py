"""A run's model behind HTTP, as clients of OpenAI's chat completions expect it: `tandem chat serve RUN`."""
