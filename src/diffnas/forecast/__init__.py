"""Hours and memory that a compression will take, foretold from the model's costs."""
