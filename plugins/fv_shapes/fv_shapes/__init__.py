"""A small text-to-video model of simple scenes, the renderer it learned from, and a checker that reads its videos."""
