"""The networks, the face model and the rasteriser of AudioDVP (Wen et al., IEEE TVCG 2020), and their files."""
