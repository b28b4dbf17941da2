"""What only APasco and Hallo have: projections of voice and face, the face locator, the mesh encoder, their files."""
