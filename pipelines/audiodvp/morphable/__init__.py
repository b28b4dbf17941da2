"""Morphable models of many faces, in place of one that is learnt from the person: their files and their fit."""
