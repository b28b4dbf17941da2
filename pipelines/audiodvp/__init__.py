"""AudioDVP: a talking video of one person, for whom its networks are trained."""
