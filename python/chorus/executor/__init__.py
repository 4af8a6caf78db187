"""The executor: takes awarded attempts, runs them in sandboxes, says their results to the mesh."""
