"""Plans: dry runs that choose ranks and train nothing, made by a runner and kept."""
