"""Control of the process itself: ranks, random state, threads, memory, signals."""
