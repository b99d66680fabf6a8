"""Who learns beside a machine: the linear model, and machines whose factors learn at other rates."""
