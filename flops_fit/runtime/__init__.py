"""What a process is and does, whatever it trains: ranks, generators, threads, memory, signals."""
