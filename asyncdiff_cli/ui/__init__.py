"""The page of `asyncdiff ui`: a schedule that is dragged beside the pictures that it makes."""
