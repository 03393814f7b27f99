"""The personalization methods: one file describes each, without loading what trains it."""
