"""The whole loop in minutes: a world, its traffic, and the story that is told from what was measured."""
