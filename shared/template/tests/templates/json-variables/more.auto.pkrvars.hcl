free = "x"
