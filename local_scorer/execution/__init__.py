"""Where entry code and torch run: the contract, a job and its steps, and the engines that run jobs."""
