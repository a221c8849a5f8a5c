"""Figures of docs/recipes.md: claims of a published recipe, each beside what was measured."""
